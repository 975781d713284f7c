//! A store that fails, lies or hangs on purpose, over any store that does not.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use keepset::store::{Patience, Store};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

/// What one call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Put,
    Get,
    List,
    Delete,
}

/// What happens to a call instead of what should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks before the store has done anything.
    Before,
    /// The store does it, but its answer is lost.
    After,
    /// The store says that it is overloaded.
    Busy,
    /// The disk is full.
    Full,
    /// Nothing ever comes.
    Hang,
    /// A create overwrites what is there.
    Overwrite,
    /// The process would die here: this call and all later ones fail for good.
    Dead,
}

/// Decides the fate of the `n`-th call (from 0), which is about `key`.
pub type Rule = Box<dyn FnMut(usize, Call, &str) -> Option<Fault> + Send>;

/// The failing store and its record of calls.
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    rule: Mutex<Rule>,
    calls: Mutex<Vec<(Call, String)>>,
    dead: Mutex<bool>,
}

impl Faulty {
    /// Memory below, with this rule over it.
    pub fn memory(rule: impl FnMut(usize, Call, &str) -> Option<Fault> + Send + 'static) -> Arc<Faulty> {
        Faulty::over(Arc::new(InMemory::new()), rule)
    }

    pub fn over(inner: Arc<dyn ObjectStore>, rule: impl FnMut(usize, Call, &str) -> Option<Fault> + Send + 'static) -> Arc<Faulty> {
        Arc::new(Faulty { inner, rule: Mutex::new(Box::new(rule)), calls: Mutex::default(), dead: Mutex::new(false) })
    }

    /// These faults for the first calls, one each, and none after.
    pub fn first(faults: &[Option<Fault>]) -> Arc<Faulty> {
        let mut faults: VecDeque<_> = faults.iter().copied().collect();
        Faulty::memory(move |_, _, _| faults.pop_front().flatten())
    }

    /// As the store that a test hands to what it tests.
    pub fn store(self: &Arc<Self>, patience: Patience) -> Store {
        Store::from_object_store(self.clone(), "faulty", patience)
    }

    /// All calls so far, in order.
    pub fn calls(&self) -> Vec<(Call, String)> {
        self.calls.lock().unwrap().clone()
    }

    fn fate(&self, call: Call, key: &str) -> Option<Fault> {
        let mut calls = self.calls.lock().unwrap();
        let n = calls.len();
        calls.push((call, key.to_owned()));
        let mut dead = self.dead.lock().unwrap();
        if *dead {
            return Some(Fault::Dead);
        }
        let fault = (self.rule.lock().unwrap())(n, call, key);
        *dead = fault == Some(Fault::Dead);
        fault
    }
}

fn broken() -> Error {
    let source = HttpError::new(HttpErrorKind::Interrupted, std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    Error::Generic { store: "faulty", source: Box::new(source) }
}

/// Fails where the fault is one of those that come before the store acts.
async fn gate(fault: Option<Fault>) -> Result<()> {
    let text = |text: &str| Err(Error::Generic { store: "faulty", source: text.into() });
    match fault {
        None | Some(Fault::After | Fault::Overwrite) => Ok(()),
        Some(Fault::Before) => Err(broken()),
        Some(Fault::Busy) => text("Server returned non-2xx status code: 503 Service Unavailable: <Code>SlowDown</Code>"),
        Some(Fault::Full) => Err(Error::Generic { store: "faulty", source: Box::new(std::io::Error::from_raw_os_error(28)) }),
        Some(Fault::Dead) => text("the process is dead"),
        Some(Fault::Hang) => std::future::pending().await,
    }
}

fn answer<T>(fault: Option<Fault>, done: Result<T>) -> Result<T> {
    if fault == Some(Fault::After) { Err(broken()) } else { done }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let fault = self.fate(Call::Put, location.as_ref());
        gate(fault).await?;
        if fault == Some(Fault::Overwrite) {
            options.mode = PutMode::Overwrite;
        }
        answer(fault, self.inner.put_opts(location, payload, options).await)
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.fate(Call::Get, location.as_ref());
        gate(fault).await?;
        answer(fault, self.inner.get_opts(location, options).await)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let fault = self.fate(Call::Get, location.as_ref());
        gate(fault).await?;
        answer(fault, self.inner.get_ranges(location, ranges).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let fault = self.fate(Call::Delete, "");
        let deleted = self.inner.delete_stream(locations);
        match fault {
            None => deleted,
            // All are deleted, but the first answer is lost.
            Some(Fault::After) => deleted.enumerate().map(move |(n, done)| if n == 0 { Err(broken()) } else { done }).boxed(),
            fault => stream::once(async move { gate(fault).await.map(|()| Path::default()) }.boxed()).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let fault = self.fate(Call::List, prefix.map(Path::as_ref).unwrap_or_default());
        let listed = self.inner.list(prefix);
        match fault {
            None => listed,
            // The list breaks off after its first object.
            Some(Fault::After) => listed.take(1).chain(stream::once(async { Err(broken()) })).boxed(),
            fault => stream::once(async move { gate(fault).await }).filter_map(async |gate| gate.err().map(Err)).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
