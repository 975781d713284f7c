//! `keepset doctor`: what is missing to back up and restore, each with its fix.

use serde::Serialize;

use crate::cli::cluster::{self, ClusterArgs};
use crate::cli::exit::{ExitCode, judge};
use crate::cli::output::{Output, Tone, chain_text};
use crate::cli::wire::Wire;
use crate::config::SetSettings;
use crate::doctor::{self, Finding, Place, Rights, State};
use crate::model::set::SetName;
use crate::platform::Platform;
use crate::platform::folders::{Folders, FoldersOptions};
use crate::platform::kubernetes::Kubernetes;
use crate::repository::{Repository, lock, run};

/// Find out what is missing to back up and restore, and how to get it
///
/// Examples:
///   keepset doctor                    the settings, the store, the repository
///   keepset doctor shop/web           and the set: its folder, or its cluster with all that movers need there
///   keepset doctor --all              and every set of the settings
///
/// Each finding has a fix that can be pasted into a shell. For a set in a cluster a pod like a mover's
/// is started and removed again: it tells whether image, Secret, quota and Pod Security are right, and
/// looks at the repository from there. In the store one small object is put and removed. Exit code 1
/// says that something is missing without which backups or restores do not work.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct DoctorArgs {
    /// The sets
    #[arg(value_name = "NAMESPACE/NAME")]
    sets: Vec<SetName>,

    /// Every set that the settings name
    #[arg(long, conflicts_with = "sets")]
    all: bool,

    #[command(flatten)]
    in_cluster: ClusterArgs,
}

#[derive(Serialize)]
struct Answer<'a> {
    findings: &'a [Finding],
}

/// Asks everything, in an order that stays, and tells what was found.
pub async fn run(args: &DoctorArgs, wire: &Wire) -> anyhow::Result<ExitCode> {
    let sets: Vec<SetName> = if args.all { wire.settings.sets.iter().filter_map(SetSettings::set).collect() } else { args.sets.clone() };
    let mut findings = vec![Finding::ok("settings", "they can be read, and fit together")];
    let place = |set: &SetName| wire.set_settings(set).and_then(|settings| settings.from.clone());
    // From outside of the cluster the repository is asked by whoever works on it: a pod.
    let is_elsewhere = !sets.is_empty() && sets.iter().all(|set| cluster::is_submitted(&args.in_cluster, wire, place(set).as_ref()));
    if !is_elsewhere {
        repository(wire, &mut findings).await;
    }
    for set in &sets {
        match place(set) {
            Some(root) => findings.push(of_folders(wire, set, root).await.of(set.to_string())),
            None => of_cluster(args, wire, set, &mut findings).await,
        }
    }
    let worst = findings.iter().map(|finding| finding.state).max();
    if wire.output.is_json() {
        wire.output.json(&Answer { findings: &findings })?;
    } else {
        findings.iter().try_for_each(|finding| text(finding, wire.output))?;
    }
    Ok(if worst == Some(State::Failed) { ExitCode::Failed } else { ExitCode::Done })
}

/// A check that could not even be begun.
fn could_not(check: &str, error: &anyhow::Error) -> Finding {
    Finding::failed(check, chain_text(error), judge(error).hint)
}

async fn repository(wire: &Wire, findings: &mut Vec<Finding>) {
    let password = match wire.password() {
        Ok(password) => {
            findings.push(Finding::ok("password", "it can be read"));
            Some(password)
        }
        Err(error) => {
            findings.push(could_not("password", &error));
            None
        }
    };
    let (store, location) = match wire.store().and_then(|store| Ok((store, wire.location()?.to_owned()))) {
        Ok(found) => found,
        Err(error) => return findings.push(could_not("store", &error)),
    };
    let probe = store.probe(&wire.clock).await;
    let is_reachable = probe.is_ok();
    findings.extend(doctor::of_store(&location, &probe));
    let (Some(password), true) = (password, is_reachable) else { return };
    let opened = Repository::open(store, &password).await;
    findings.push(doctor::of_repository(opened.as_ref().map(|repository| repository.config().id.as_str())));
    let Ok(repository) = opened else { return };
    match lock::locks(&repository).await {
        Ok(locks) => findings.push(doctor::of_locks(&locks, wire.clock.now())),
        Err(error) => findings.push(could_not("locks", &error.into())),
    }
}

async fn of_folders(wire: &Wire, set: &SetName, root: std::path::PathBuf) -> Finding {
    let settings = wire.set_settings(set);
    let templates = settings.map(|set| set.templates.clone()).unwrap_or_default();
    let read = async {
        let folders = Folders::new(FoldersOptions { templates, ..wire.folders(root)? });
        anyhow::Ok(folders.read_set(set).await?)
    };
    match read.await {
        Ok(state) => {
            let there = state.claims.iter().filter(|claim| claim.source.is_some()).count();
            Finding::ok("set", format!("{there} claims have folders"))
        }
        Err(error) => could_not("set", &error),
    }
}

async fn of_cluster(args: &DoctorArgs, wire: &Wire, set: &SetName, findings: &mut Vec<Finding>) {
    let of = set.to_string();
    let (platform, image) =
        match cluster::kubernetes(&args.in_cluster, wire).await.and_then(|found| Ok((found, cluster::image(&args.in_cluster, wire)?))) {
            Ok(found) => found,
            Err(error) => return findings.push(could_not("api", &error).of(of)),
        };
    let secret = cluster::secret(&args.in_cluster, wire);
    let place = Place { set, secret: &secret, variables: Wire::variables_for_movers(), image: &image };
    match platform.examine(set, Rights::all()).await {
        Ok(examined) => findings.extend(doctor::of_cluster(&place, &examined)),
        Err(error) => return findings.push(could_not("api", &error.into()).of(of)),
    }
    match look_inside(&platform, wire, set).await {
        Ok(inside) => findings.extend(doctor::inside(&place, &inside)),
        Err(error) => findings.push(could_not("pod", &error).of(of)),
    }
}

async fn look_inside(platform: &Kubernetes, wire: &Wire, set: &SetName) -> anyhow::Result<crate::platform::kubernetes::Inside> {
    let run = run::new_id(&wire.clock)?;
    // What the Secret says of the repository holds where nobody says it here.
    Ok(platform.look_inside(&run, set, wire.location().ok()).await?)
}

fn text(finding: &Finding, output: Output) -> anyhow::Result<()> {
    let state = match finding.state {
        State::Ok => output.tone(Tone::Good, "ok     "),
        State::Warning => output.tone(Tone::Caution, "warning"),
        State::Failed => output.tone(Tone::Bad, "failed "),
    };
    let of = finding.of.as_ref().map(|of| format!(" ({of})")).unwrap_or_default();
    output.line(&format!("{state}  {}{of}: {}", finding.check, finding.detail))?;
    if let Some(fix) = &finding.fix {
        output.line(&output.tone(Tone::Faint, "         fix:"))?;
        // As it is to be pasted: an indented end of a heredoc is none.
        fix.lines().try_for_each(|line| output.line(line))?;
    }
    Ok(())
}
