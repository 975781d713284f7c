//! What faults do to calls and to the bytes that they carry.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, BoxStream, Stream};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::{Error, GetResult, GetResultPayload, Result};

use crate::store::fault::Fault;

/// As the HTTP client tells a broken connection.
pub(super) fn broken() -> Error {
    let source = HttpError::new(HttpErrorKind::Interrupted, std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    Error::Generic { store: "faulty", source: Box::new(source) }
}

pub(super) fn unknown(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "faulty".to_owned() }
}

/// Waits or fails where the fault is one of those that come before the store acts.
pub(super) async fn gate(fault: Option<&Fault>) -> Result<()> {
    let text = |text: &str| Err(Error::Generic { store: "faulty", source: text.into() });
    match fault {
        Some(Fault::Before) => Err(broken()),
        Some(Fault::Busy) => text("Server returned non-2xx status code: 503 Service Unavailable: <Code>SlowDown</Code>"),
        Some(Fault::Denied) => Err(Error::PermissionDenied { path: String::new(), source: "the store says no".into() }),
        Some(Fault::Full) => Err(Error::Generic { store: "faulty", source: Box::new(std::io::Error::from_raw_os_error(28)) }),
        Some(Fault::Dead) => text("the store is gone"),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Delay(time)) => {
            tokio::time::sleep(*time).await;
            Ok(())
        }
        Some(Fault::Held(gate)) => {
            gate.pass().await;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Loses the answer where the fault says so.
pub(super) fn answer<T>(fault: Option<&Fault>, done: Result<T>) -> Result<T> {
    if matches!(fault, Some(Fault::After | Fault::Torn)) { Err(broken()) } else { done }
}

/// What becomes of a body.
pub(super) fn body(fault: Option<&Fault>, bytes: Bytes) -> Bytes {
    match fault {
        Some(Fault::Torn | Fault::Short) => bytes.slice(..bytes.len() / 2),
        Some(Fault::Flip(seed)) if !bytes.is_empty() => {
            let bit = scramble(*seed) % (bytes.len() as u64 * 8);
            let mut bytes = BytesMut::from(&bytes[..]);
            let at = usize::try_from(bit / 8).unwrap_or_default();
            bytes[at] ^= 1 << (bit % 8);
            bytes.freeze()
        }
        _ => bytes,
    }
}

/// What comes of a get.
pub(super) async fn reading(fault: Option<Fault>, got: GetResult) -> Result<GetResult> {
    let (meta, range, attributes, extensions) = (got.meta.clone(), got.range.clone(), got.attributes.clone(), got.extensions.clone());
    let stream = match fault {
        Some(Fault::Torn | Fault::Short | Fault::Flip(_)) => {
            let half = body(fault.as_ref(), got.bytes().await?);
            let end = matches!(fault, Some(Fault::Torn)).then(|| Err(broken()));
            stream::iter([Ok(half)].into_iter().chain(end)).boxed()
        }
        Some(Fault::Drip(pause)) => {
            let whole = got.bytes().await?;
            let pieces: Vec<_> = whole.chunks(whole.len().div_ceil(8).max(1)).map(Bytes::copy_from_slice).map(Ok).collect();
            dripping(stream::iter(pieces), pause)
        }
        _ => return Ok(got),
    };
    Ok(GetResult { payload: GetResultPayload::Stream(stream), meta, range, attributes, extensions })
}

/// Each item after a pause of its own.
pub(super) fn dripping<T: Send + 'static>(
    items: impl Stream<Item = Result<T>> + Send + 'static,
    pause: Duration,
) -> BoxStream<'static, Result<T>> {
    let after = move |item| async move {
        tokio::time::sleep(pause).await;
        item
    };
    items.then(after).boxed()
}

/// Spreads a small number over all bits (splitmix64).
fn scramble(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
