//! How long does a call wait, and when is it tried again?
//!
//! Every call has a deadline that grows with the bytes it carries. Below, the HTTP client repeats a request for some seconds when a connection
//! breaks or a server is overloaded. Above, what is still failing is tried again for minutes, but only once the store has answered before: an
//! outage in the middle of a run is waited out, a wrong address at its start is told at once.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use object_store::{BackoffConfig, RetryConfig};
use tokio::time::{Instant, sleep, timeout};

use crate::store::error::{ErrorKind, StoreError};

/// Bytes per second below which a transfer counts as stuck.
const SLOWEST: u64 = 100 << 10;

/// How long calls wait.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one try of a call that carries no bytes; each 100 KiB that it carries gives it a second more.
    pub attempt: Duration,
    /// For an outage of a store that has answered before; zero tries nothing twice.
    pub outage: Duration,
}

impl Patience {
    /// For stores behind a network.
    pub fn remote() -> Self {
        Patience { attempt: Duration::from_secs(30), outage: Duration::from_secs(300) }
    }

    /// For folders and memory: a disk gets time to wake up, but an error there does not pass.
    pub fn local() -> Self {
        Patience { attempt: Duration::from_secs(300), outage: Duration::ZERO }
    }

    fn deadline(self, bytes: u64) -> Duration {
        self.attempt + Duration::from_secs(bytes / SLOWEST)
    }
}

/// How the HTTP client repeats single requests: with jitter, for some 20 seconds at most, so that an unreachable store is told in time.
pub(super) fn retry_config() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 2.0 },
        max_retries: 6,
        retry_timeout: Duration::from_secs(15),
    }
}

/// Whether the store has ever answered; shared by all clones.
#[derive(Debug, Default)]
pub(super) struct Contact(AtomicBool);

/// What a call is about, for its errors.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) action: &'static str,
    pub(super) location: &'a str,
    pub(super) key: &'a str,
}

impl About<'_> {
    pub(super) fn error(self, source: &object_store::Error) -> StoreError {
        StoreError::new(self.action, self.location, self.key, source)
    }

    pub(super) fn own(self, kind: ErrorKind, cause: impl Into<String>) -> StoreError {
        StoreError::own(kind, self.action, self.location, self.key, cause)
    }
}

/// One try, which ends with its deadline.
pub(super) async fn within<T>(
    patience: Patience,
    about: About<'_>,
    bytes: u64,
    call: impl Future<Output = object_store::Result<T>>,
) -> Result<T, StoreError> {
    let deadline = patience.deadline(bytes);
    match timeout(deadline, call).await {
        Ok(done) => done.map_err(|e| about.error(&e)),
        Err(_) => Err(about.own(ErrorKind::Timeout, format!("no answer within {} s", deadline.as_secs()))),
    }
}

/// Repeats `attempt` while its failure is one that passes and patience lasts.
pub(super) async fn persist<T, F>(patience: Patience, contact: &Contact, about: About<'_>, attempt: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let begun = Instant::now();
    let mut pause = Duration::from_secs(1);
    loop {
        let error = match attempt().await {
            Ok(done) => {
                contact.0.store(true, Ordering::Relaxed);
                return Ok(done);
            }
            Err(error) => error,
        };
        if !matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Timeout) {
            // A refusal is an answer too.
            contact.0.store(true, Ordering::Relaxed);
        }
        if !error.kind.is_passing() {
            return Err(error);
        }
        let waited = begun.elapsed();
        if !contact.0.load(Ordering::Relaxed) || waited + pause > patience.outage {
            return Err(error);
        }
        tracing::warn!(action = about.action, key = about.key, location = about.location, kind = ?error.kind, "store does not answer, trying again");
        sleep(pause.mul_f64(jitter())).await;
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

/// Between 0.5 and 1: many movers that lost the same store do not come back at the same moment.
fn jitter() -> f64 {
    let mut byte = [0];
    // Without randomness there is no jitter, which is still right for one.
    crate::random::fill(&mut byte).ok();
    0.5 + f64::from(byte[0]) / 510.0
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    const ABOUT: About<'static> = About { action: "get", location: "s3://bucket", key: "config" };

    async fn fails(kind: ErrorKind, times: u32, contact: &Contact) -> (Result<u32, StoreError>, u32) {
        let tries = AtomicU32::new(0);
        let done = persist(Patience::remote(), contact, ABOUT, || async {
            let before = tries.fetch_add(1, Ordering::Relaxed);
            if before < times { Err(ABOUT.own(kind, "planted")) } else { Ok(before) }
        })
        .await;
        (done, tries.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_waited_out_by_who_had_contact_before() {
        let contact = Contact(AtomicBool::new(true));
        assert_eq!(fails(ErrorKind::Unreachable, 10, &contact).await.0.ok(), Some(10));
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_that_does_not_end_is_told_after_five_minutes() {
        let contact = Contact(AtomicBool::new(true));
        let begun = Instant::now();
        let (done, tries) = fails(ErrorKind::Busy, u32::MAX, &contact).await;
        assert_eq!(done.unwrap_err().kind, ErrorKind::Busy);
        assert!(tries > 5 && begun.elapsed() <= Duration::from_secs(300), "{tries} tries in {:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_never_answered_is_told_at_once() {
        let contact = Contact::default();
        assert_eq!(fails(ErrorKind::Unreachable, u32::MAX, &contact).await.1, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_not_repeated() {
        let contact = Contact(AtomicBool::new(true));
        for kind in [ErrorKind::Denied, ErrorKind::NotFound, ErrorKind::Full, ErrorKind::Other] {
            assert_eq!(fails(kind, u32::MAX, &contact).await.1, 1, "{kind:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_never_ends_is_cut_at_its_deadline_which_grows_with_its_bytes() {
        for (bytes, seconds) in [(0, 30), (64 << 20, 30 + 655)] {
            let begun = Instant::now();
            let done = within::<()>(Patience::remote(), ABOUT, bytes, std::future::pending()).await;
            assert_eq!(done.unwrap_err().kind, ErrorKind::Timeout);
            assert_eq!(begun.elapsed().as_secs(), seconds);
        }
    }
}
