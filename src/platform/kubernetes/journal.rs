//! The journal of a restore as a ConfigMap: every line is written for the version before it, so that two can never write at once.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, PostParams, Preconditions};
use serde_json::json;

use crate::model::journal::Journal;
use crate::model::set::SetName;
use crate::platform::kubernetes::patience::Asked;
use crate::platform::kubernetes::{Kubernetes, api, names};
use crate::platform::{JournalHold, PlatformError};

const TEXT: &str = "journal";
/// The run of the last restore that changed claims which were there.
const LAST: &str = "lastRestore";

pub(super) async fn read(cluster: &Kubernetes, set: &SetName) -> Result<Option<String>, PlatformError> {
    Ok(record(cluster, set).await?.and_then(|record| record.data?.remove(TEXT)))
}

/// The run of an open restore that has begun to change claims and has not filled them all, and the last one that is closed.
pub(super) async fn runs(cluster: &Kubernetes, set: &SetName) -> Result<(Option<String>, Option<String>), PlatformError> {
    let mut data = record(cluster, set).await?.and_then(|record| record.data).unwrap_or_default();
    let open = data.remove(TEXT).and_then(|text| match Journal::read(&text) {
        Ok(Some(journal)) => (!journal.is_untouched() && !journal.is_settled()).then(|| journal.opening().run.clone()),
        Ok(None) => None,
        Err(_) => Some("unknown".to_owned()),
    });
    Ok((open, data.remove(LAST)))
}

pub(super) async fn open(cluster: &Kubernetes, set: &SetName, first: &str) -> Result<JournalHold, PlatformError> {
    let there = || PlatformError::JournalThere { path: format!("ConfigMap {}/{}", set.namespace, names::journal(&set.name)) };
    let records = cluster.records(&set.namespace);
    let written = match record(cluster, set).await? {
        Some(record) if record.data.as_ref().is_some_and(|data| data.contains_key(TEXT)) => return Err(there()),
        Some(mut record) => {
            record.data.get_or_insert_default().insert(TEXT.to_owned(), first.to_owned());
            label(cluster, &mut record);
            let (name, params) = (names::journal(&set.name), PostParams::default());
            cluster.ask(Asked::Once, || records.replace(&name, &params, &record)).await
        }
        None => {
            let mut record: ConfigMap = api::object(json!({
                "metadata": { "name": names::journal(&set.name), "labels": { names::MANAGED_BY: names::MANAGER, names::SET: set.name } },
                "data": { TEXT: first },
            }));
            label(cluster, &mut record);
            cluster.create(&records, &record).await
        }
    };
    match written {
        Ok(record) => Ok(JournalHold { set: set.clone(), file: None, version: record.metadata.resource_version }),
        Err(error) if api::code(&error) == 409 => Err(there()),
        Err(error) => Err(failed(set, error)),
    }
}

/// Whoever takes it holds the set: its last owner is dead, and could write no more after this one's first line.
pub(super) async fn take(cluster: &Kubernetes, set: &SetName) -> Result<Option<(JournalHold, String)>, PlatformError> {
    let Some(record) = record(cluster, set).await? else { return Ok(None) };
    let version = record.metadata.resource_version.clone();
    let text = record.data.and_then(|mut data| data.remove(TEXT));
    Ok(text.map(|text| (JournalHold { set: set.clone(), file: None, version }, text)))
}

pub(super) async fn append(cluster: &Kubernetes, hold: &mut JournalHold, line: &str) -> Result<(), PlatformError> {
    let add = |data: &mut BTreeMap<String, String>| data.entry(TEXT.to_owned()).or_default().push_str(line);
    hold.version = write(cluster, hold, add).await?;
    Ok(())
}

pub(super) async fn close(cluster: &Kubernetes, hold: JournalHold) -> Result<(), PlatformError> {
    let close = |data: &mut BTreeMap<String, String>| {
        let text = data.remove(TEXT).unwrap_or_default();
        if let Ok(Some(journal)) = Journal::read(&text)
            && journal.may_disturb()
        {
            data.insert(LAST.to_owned(), journal.opening().run.clone());
        }
    };
    write(cluster, &hold, close).await.map(|_| ())
}

/// Changes the record that the hold has the right to; the new version.
async fn write(
    cluster: &Kubernetes,
    hold: &JournalHold,
    change: impl Fn(&mut BTreeMap<String, String>) + Sync,
) -> Result<Option<String>, PlatformError> {
    let set = &hold.set;
    let held = || PlatformError::JournalHeld { path: format!("set {set}") };
    let records = cluster.records(&set.namespace);
    // The version whose data are these is this write's own, whoever was told of it.
    let written: Mutex<Option<BTreeMap<String, String>>> = Mutex::new(None);
    let take = || written.lock().unwrap_or_else(PoisonError::into_inner).take();
    let wrote = cluster.ask(Asked::Repeatable, || async {
        let Some(mut record) = records.get_opt(&names::journal(&set.name)).await? else { return Ok(None) };
        if record.metadata.resource_version != hold.version {
            let is_own = take().is_some_and(|written| record.data.as_ref() == Some(&written));
            return Ok(is_own.then_some(record));
        }
        change(record.data.get_or_insert_default());
        label(cluster, &mut record);
        *written.lock().unwrap_or_else(PoisonError::into_inner) = record.data.clone();
        match records.replace(&names::journal(&set.name), &PostParams::default(), &record).await {
            Err(error) if api::code(&error) == 409 => Ok(None),
            replaced => replaced.map(Some),
        }
    });
    let record = wrote.await.map_err(|error| failed(set, error))?.ok_or_else(held)?;
    Ok(record.metadata.resource_version)
}

/// A drill's bears its label, and no longer once a restore in earnest writes it.
fn label(cluster: &Kubernetes, record: &mut ConfigMap) {
    let labels = record.metadata.labels.get_or_insert_default();
    match &cluster.drill {
        Some(drill) => drop(labels.insert(names::DRILL.to_owned(), drill.clone())),
        None => drop(labels.remove(names::DRILL)),
    }
}

/// Removes the journal of a dead drill, and no other.
pub(super) async fn remove_drills(cluster: &Kubernetes, set: &SetName) -> Result<(), PlatformError> {
    let Some(record) = record(cluster, set).await? else { return Ok(()) };
    if !names::is_drills(&record.metadata) {
        return Ok(());
    }
    let exactly = Preconditions { uid: record.metadata.uid, resource_version: record.metadata.resource_version };
    let removal = DeleteParams { preconditions: Some(exactly), ..api::background() };
    let name = names::journal(&set.name);
    cluster.remove(&cluster.records(&set.namespace), &name, &removal).await.map_err(|error| api::failed("remove", name, error))
}

/// Whether something is written of restores of the set that were none of a drill's.
pub(super) async fn is_in_earnest(cluster: &Kubernetes, set: &SetName) -> Result<bool, PlatformError> {
    Ok(record(cluster, set).await?.is_some_and(|record| !names::is_drills(&record.metadata)))
}

async fn record(cluster: &Kubernetes, set: &SetName) -> Result<Option<ConfigMap>, PlatformError> {
    let read = cluster.get(&cluster.records(&set.namespace), &names::journal(&set.name)).await;
    read.map_err(|error| api::failed("read", format!("the journal of set {set}"), error))
}

fn failed(set: &SetName, error: kube::Error) -> PlatformError {
    api::failed("write", format!("the journal of set {set}"), error)
}
