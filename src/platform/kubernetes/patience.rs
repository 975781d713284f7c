//! Calls of the API server that are tried again: a server that restarts in the middle of a run is waited for.
//!
//! Only once it has answered before: a wrong address is told at once. What is asked again must do no harm when it was done already.

use std::error::Error as _;
use std::fmt::Debug;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::platform::kubernetes::{Kubernetes, api, names};

/// An API server that has been silent for so long is given up.
pub(super) const OUTAGE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// An API server that has just come back knows nobody's rights for so long.
const WAKING: Duration = Duration::from_secs(20);

/// What is known of the API server; shared by all clones.
#[derive(Clone, Debug, Default)]
pub(super) struct Contact {
    /// It has answered before.
    ever: Arc<AtomicBool>,
    /// When a call got no answer last.
    silent: Arc<Mutex<Option<Instant>>>,
}

impl Contact {
    fn is_waking(&self) -> bool {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < WAKING)
    }
}

/// What may be done again when the answer to it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It changes nothing.
    Reading,
    /// Done twice it is as if done once.
    Repeatable,
    /// Only what surely was not done is done again.
    Once,
}

/// Pure: whether to ask again after this error.
fn passes(asked: Asked, error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => match status.code {
            // It was turned away before anything was done.
            429 => true,
            502..=504 => asked != Asked::Once,
            // Of a write this is the word of an admission webhook as often as of a server in trouble.
            500 => asked == Asked::Reading,
            _ => false,
        },
        kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => asked != Asked::Once || is_unsent(error),
        _ => false,
    }
}

/// Nobody was there to take the request.
fn is_unsent(error: &kube::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        source = cause.source();
    }
    false
}

/// How long the server itself asks to be left alone.
fn asked_pause(error: &kube::Error) -> Duration {
    let kube::Error::Api(status) = error else { return Duration::ZERO };
    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    Duration::from_secs(u64::from(seconds)).min(LONGEST_PAUSE * 2)
}

/// Repeats `attempt` while its failure is one that passes and the outage is not too long.
async fn persist<T, F>(contact: &Contact, asked: Asked, attempt: impl Fn() -> F) -> kube::Result<T>
where
    F: Future<Output = kube::Result<T>>,
{
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match attempt().await {
            Ok(done) => {
                contact.ever.store(true, Ordering::Relaxed);
                return Ok(done);
            }
            Err(error) => error,
        };
        let is_forbidden = matches!(api::code(&error), 401 | 403);
        match api::code(&error) {
            0 | 502..=504 => *contact.silent.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now()),
            // A refusal is an answer too.
            _ => contact.ever.store(true, Ordering::Relaxed),
        }
        let passes = passes(asked, &error) || (is_forbidden && contact.is_waking());
        let next = pause.max(asked_pause(&error));
        if !passes || !contact.ever.load(Ordering::Relaxed) || begun.elapsed() + next > OUTAGE {
            return Err(error);
        }
        tracing::warn!(error = api::words(&error), "the API server does not answer, trying again");
        sleep(next.mul_f64(jitter())).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Between 0.75 and 1.25: many that lost the same server do not come back at the same moment.
fn jitter() -> f64 {
    let mut byte = [0];
    // Without randomness there is no jitter, which is still right for one.
    crate::random::fill(&mut byte).ok();
    0.75 + f64::from(byte[0]) / 510.0
}

impl Kubernetes {
    /// Asks until there is an answer, or the outage is too long.
    pub(super) async fn ask<T, F>(&self, asked: Asked, attempt: impl Fn() -> F) -> kube::Result<T>
    where
        F: Future<Output = kube::Result<T>> + Send,
    {
        persist(&self.contact, asked, attempt).await
    }

    /// `None` where there is no such object.
    pub(super) async fn get<K: Clone + DeserializeOwned + Debug>(&self, api: &Api<K>, name: &str) -> kube::Result<Option<K>> {
        self.ask(Asked::Reading, || api.get_opt(name)).await
    }

    pub(super) async fn list<K: Clone + DeserializeOwned + Debug>(&self, api: &Api<K>, params: &ListParams) -> kube::Result<Vec<K>> {
        Ok(self.ask(Asked::Reading, || api.list(params)).await?.items)
    }

    /// Makes an object, or leaves it open whether it was made.
    pub(super) async fn create<K>(&self, api: &Api<K>, object: &K) -> kube::Result<K>
    where
        K: Clone + DeserializeOwned + Debug + Serialize + Send + Sync,
    {
        let params = PostParams::default();
        self.ask(Asked::Once, || api.create(&params, object)).await
    }

    /// Makes an object whose name no other maker would choose: one that is there after an answer was lost is the one.
    pub(super) async fn make<K>(&self, api: &Api<K>, name: &str, object: &K) -> kube::Result<K>
    where
        K: Clone + DeserializeOwned + Debug + Serialize + Send + Sync,
    {
        let in_doubt = AtomicBool::new(false);
        let attempt = || async {
            match api.create(&PostParams::default(), object).await {
                Err(error) if in_doubt.load(Ordering::Relaxed) && api::code(&error) == 409 => api.get(name).await,
                Err(error) => {
                    in_doubt.store(!matches!(api::code(&error), 400..=499), Ordering::Relaxed);
                    Err(error)
                }
                made => made,
            }
        };
        self.ask(Asked::Repeatable, attempt).await
    }

    /// Changes what the patch names; it must not name the version.
    pub(super) async fn change<K: Clone + DeserializeOwned + Debug>(&self, api: &Api<K>, name: &str, patch: &Value) -> kube::Result<K> {
        let params = PatchParams { field_manager: Some(names::MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::Merge(patch);
        self.ask(Asked::Repeatable, || api.patch(name, &params, &patch)).await
    }

    /// Ok where it was removed, is about to be, or was not there.
    pub(super) async fn remove<K: Clone + DeserializeOwned + Debug>(
        &self,
        api: &Api<K>,
        name: &str,
        params: &DeleteParams,
    ) -> kube::Result<()> {
        match self.ask(Asked::Repeatable, || api.delete(name, params)).await {
            Err(error) if api::code(&error) != 404 => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use kube::core::Status;

    use super::*;

    fn said(code: u16) -> kube::Error {
        kube::Error::Api(Box::new(Status { code, ..Status::failure("planted", "Planted") }))
    }

    fn broken(kind: io::ErrorKind) -> kube::Error {
        kube::Error::Service(Box::new(io::Error::from(kind)))
    }

    fn in_contact() -> Contact {
        Contact { ever: Arc::new(AtomicBool::new(true)), ..Contact::default() }
    }

    /// How often it was asked, and what came of it, where the first `times` answers are errors.
    async fn fails(contact: &Contact, asked: Asked, times: u32, error: impl Fn() -> kube::Error) -> (kube::Result<()>, u32) {
        let tries = AtomicU32::new(0);
        let attempt = || async {
            let before = tries.fetch_add(1, Ordering::Relaxed);
            if before < times { Err(error()) } else { Ok(()) }
        };
        (persist(contact, asked, attempt).await, tries.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_is_asked_again_whatever_became_of_the_answer() {
        for error in [|| said(429), || said(500), || said(503), || said(504), || broken(io::ErrorKind::ConnectionReset)] {
            let (done, tries) = fails(&in_contact(), Asked::Reading, 3, error).await;
            assert!(done.is_ok() && tries == 4, "{done:?} {tries}");
        }
        for code in [400, 401, 403, 404, 409, 410, 422] {
            let (done, tries) = fails(&in_contact(), Asked::Reading, 1, || said(code)).await;
            assert!(done.is_err() && tries == 1, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_done_again_only_where_that_is_safe() {
        let again = async |asked, error: fn() -> kube::Error| fails(&in_contact(), asked, 1, error).await.1 == 2;
        let turned_away: [fn() -> kube::Error; 2] = [|| said(429), || broken(io::ErrorKind::ConnectionRefused)];
        let in_doubt: [fn() -> kube::Error; 3] = [|| said(502), || said(504), || broken(io::ErrorKind::ConnectionReset)];
        for error in turned_away {
            assert!(again(Asked::Once, error).await && again(Asked::Repeatable, error).await, "{:?}", error());
        }
        for error in in_doubt {
            assert!(!again(Asked::Once, error).await && again(Asked::Repeatable, error).await, "{:?}", error());
        }
        assert!(!again(Asked::Repeatable, || said(500)).await, "a webhook that fails does not pass");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_has_just_come_back_may_not_know_yet_what_is_allowed() {
        let contact = in_contact();
        assert!(fails(&contact, Asked::Once, 1, || broken(io::ErrorKind::ConnectionRefused)).await.0.is_ok());
        assert!(fails(&contact, Asked::Once, 2, || said(403)).await.0.is_ok());
        sleep(WAKING).await;
        assert_eq!(fails(&contact, Asked::Reading, 2, || said(403)).await.1, 1, "by now it does");
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_that_does_not_end_is_told_after_a_minute() {
        let begun = Instant::now();
        let (done, tries) = fails(&in_contact(), Asked::Reading, u32::MAX, || said(503)).await;
        assert!(done.is_err() && tries > 8, "{tries}");
        assert!(begun.elapsed() > OUTAGE / 2 && begun.elapsed() <= OUTAGE + LONGEST_PAUSE, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answered_is_told_at_once() {
        let contact = Contact::default();
        assert_eq!(fails(&contact, Asked::Reading, u32::MAX, || broken(io::ErrorKind::ConnectionRefused)).await.1, 1);
        assert!(fails(&contact, Asked::Reading, 1, || said(404)).await.0.is_err());
        assert!(fails(&contact, Asked::Reading, 1, || broken(io::ErrorKind::ConnectionRefused)).await.0.is_ok(), "a refusal is an answer");
    }
}
