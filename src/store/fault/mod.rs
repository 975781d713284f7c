//! A store that fails, delays, lies and writes down what it was asked, over any store that does none of it. Test equipment: builds for
//! users have neither this nor any other way to break a store.
//!
//! A rule decides about each call, by its number, what it does and which object it is about. Delays go by tokio's clock, so that a paused
//! one skips them; whatever is random comes from a seed.

mod gate;
mod harm;

pub use gate::Gate;

use std::fmt;
use std::ops::{Range, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::TimeDelta;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryFutureExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::store::Store;
use crate::store::fault::harm::{answer, broken, gate};
use crate::store::patience::Patience;

/// What a call does; on S3 each is one request, a list one for each thousand objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Put,
    Get,
    /// Asks for the size alone.
    Head,
    List,
    Delete,
}

/// One call, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub kind: Kind,
    /// The object; the folder of a list; the first of the objects of a delete.
    pub key: String,
    /// Of a put's body, or of the range of a get; 0 for a get of all.
    pub bytes: u64,
}

/// What happens to a call instead of what should.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection breaks before the store has done anything.
    Before,
    /// The store does it, but its answer is lost. Of a list the first object has come.
    After,
    /// The connection breaks midway: half of the body is stored under the object's name, as no store should, half of the objects are
    /// deleted, half of the list or of the bytes has come.
    Torn,
    /// A get ends early, and nothing says so.
    Short,
    /// One bit of what is put or got is another one; which, the seed says.
    Flip(u64),
    /// The store says that it is overloaded.
    Busy,
    /// The store says no.
    Denied,
    /// The disk is full.
    Full,
    /// Nothing ever comes.
    Hang,
    /// It is done after this time.
    Delay(Duration),
    /// It is done, and its answer comes in pieces, each after this time: eighths of a body, single objects of a list.
    Drip(Duration),
    /// It is done once somebody opens the gate.
    Held(Gate),
    /// A create overwrites what is there.
    Overwrite,
    /// A list as it was before the last so many objects were put or deleted.
    Stale(usize),
    /// The store is gone: this call and all later ones fail for good, until [`Faulty::heal`].
    Dead,
}

/// Decides the fate of the `n`-th call, from 0.
pub type Rule = Box<dyn FnMut(usize, &Call) -> Option<Fault> + Send>;

/// The failing store and its record of calls. Clones are the same store.
#[derive(Clone)]
pub struct Faulty(Arc<Inner>);

struct Inner {
    store: Arc<dyn ObjectStore>,
    state: Mutex<State>,
}

struct State {
    rule: Rule,
    calls: Vec<Call>,
    fired: usize,
    dead: bool,
    skew: TimeDelta,
    changes: Vec<Change>,
}

/// What a stale list does not know yet.
#[derive(Clone)]
enum Change {
    Put(Path),
    Deleted(ObjectMeta),
}

impl Faulty {
    /// Over a store that works; until [`Faulty::obey`] it works too.
    pub fn over(store: Arc<dyn ObjectStore>) -> Self {
        let state =
            State { rule: Box::new(|_, _| None), calls: Vec::new(), fired: 0, dead: false, skew: TimeDelta::zero(), changes: Vec::new() };
        Faulty(Arc::new(Inner { store, state: Mutex::new(state) }))
    }

    /// Memory below, with this rule over it.
    pub fn memory(rule: impl FnMut(usize, &Call) -> Option<Fault> + Send + 'static) -> Self {
        let faulty = Faulty::over(Arc::new(InMemory::new()));
        faulty.obey(rule);
        faulty
    }

    /// Forgets what was, and follows this rule from now on: the next call is number 0.
    pub fn obey(&self, rule: impl FnMut(usize, &Call) -> Option<Fault> + Send + 'static) {
        let mut state = self.state();
        state.rule = Box::new(rule);
        (state.calls, state.fired, state.dead) = (Vec::new(), 0, false);
    }

    /// Works from now on. The record stays.
    pub fn heal(&self) {
        let mut state = self.state();
        state.rule = Box::new(|_, _| None);
        state.dead = false;
    }

    /// The store's clock, by which objects are dated, is ahead by so much from now on.
    pub fn skew(&self, by: TimeDelta) {
        self.state().skew = by;
    }

    /// As the store that a test hands to what it tests.
    pub fn store(&self, patience: Patience) -> Store {
        Store::from_object_store(Arc::new(self.clone()), "faulty", patience)
    }

    /// All calls so far, in the order in which they came.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// How many calls of this kind there were.
    pub fn count(&self, kind: Kind) -> usize {
        self.state().calls.iter().filter(|call| call.kind == kind).count()
    }

    /// How many calls a fault has befallen.
    pub fn fired(&self) -> usize {
        self.state().fired
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the call down and asks the rule.
    fn fate(&self, kind: Kind, key: &str, bytes: u64) -> Option<Fault> {
        let mut state = self.state();
        let call = Call { kind, key: key.to_owned(), bytes };
        let number = state.calls.len();
        state.calls.push(call.clone());
        let fault = if state.dead { Some(Fault::Dead) } else { (state.rule)(number, &call) };
        state.dead |= matches!(fault, Some(Fault::Dead));
        state.fired += usize::from(fault.is_some());
        fault
    }

    fn note(&self, change: Change) {
        self.state().changes.push(change);
    }

    /// Deletes one object after the other, which on S3 is one request.
    async fn delete_all(self, paths: Vec<Path>, fault: Option<Fault>) -> Result<()> {
        gate(fault.as_ref()).await?;
        let half = if matches!(fault, Some(Fault::Torn)) { paths.len().div_ceil(2) } else { paths.len() };
        for path in &paths[..half] {
            let there = self.0.store.head(path).await.ok();
            match self.0.store.delete(path).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
            if let Some(meta) = there {
                self.note(Change::Deleted(meta));
            }
        }
        answer(fault.as_ref(), Ok(()))
    }

    /// The list with what a fault makes of it.
    async fn list_all(self, prefix: Option<Path>, fault: Option<Fault>) -> Result<BoxStream<'static, Result<ObjectMeta>>> {
        gate(fault.as_ref()).await?;
        let mut listed: Vec<ObjectMeta> = self.0.store.list(prefix.as_ref()).try_collect().await?;
        if let Some(Fault::Stale(lag)) = fault {
            let changes = self.state().changes.clone();
            for change in changes.into_iter().rev().take(lag) {
                match change {
                    Change::Put(path) => listed.retain(|meta| meta.location != path),
                    Change::Deleted(meta) if prefix.as_ref().is_none_or(|prefix| meta.location.prefix_matches(prefix)) => listed.push(meta),
                    Change::Deleted(_) => {}
                }
            }
        }
        let skew = self.state().skew;
        listed.iter_mut().for_each(|meta| meta.last_modified += skew);
        let cut = match fault {
            Some(Fault::After) => Some(1),
            Some(Fault::Torn) => Some(listed.len() / 2),
            _ => None,
        };
        let whole = stream::iter(listed.into_iter().map(Ok));
        Ok(match (fault, cut) {
            (_, Some(cut)) => whole.take(cut).chain(stream::once(async { Err(broken()) })).boxed(),
            (Some(Fault::Drip(pause)), None) => harm::dripping(whole, pause),
            _ => whole.boxed(),
        })
    }
}

/// A rule for calls by number: `on(n..=n, …)` for one, `on(n.., …)` for all from there, `on(n..n + k, …)` for a storm that passes.
pub fn on(numbers: impl RangeBounds<usize> + Send + 'static, fault: Fault) -> impl FnMut(usize, &Call) -> Option<Fault> + Send + 'static {
    move |number, _| numbers.contains(&number).then(|| fault.clone())
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
        let fault = self.fate(Kind::Put, location.as_ref(), payload.content_length() as u64);
        gate(fault.as_ref()).await?;
        if matches!(fault, Some(Fault::Overwrite)) {
            options.mode = PutMode::Overwrite;
        }
        let payload = match fault {
            Some(Fault::Torn | Fault::Flip(_)) => harm::body(fault.as_ref(), payload.into()).into(),
            _ => payload,
        };
        let put = self.0.store.put_opts(location, payload, options).await?;
        self.note(Change::Put(location.clone()));
        answer(fault.as_ref(), Ok(put))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let bytes = match &options.range {
            Some(object_store::GetRange::Bounded(range)) => range.end - range.start,
            _ => 0,
        };
        let head = options.head;
        let fault = self.fate(if head { Kind::Head } else { Kind::Get }, location.as_ref(), bytes);
        gate(fault.as_ref()).await?;
        let mut got = self.0.store.get_opts(location, options).await?;
        got.meta.last_modified += self.state().skew;
        if matches!(fault, Some(Fault::After)) {
            return Err(broken());
        }
        if head { Ok(got) } else { harm::reading(fault, got).await }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let faulty = self.clone();
        let deleting = async move {
            let paths: Vec<Path> = locations.try_collect().await?;
            let first = paths.first().map(Path::as_ref).unwrap_or_default();
            let fault = faulty.fate(Kind::Delete, first, 0);
            faulty.delete_all(paths.clone(), fault).await?;
            Ok::<_, Error>(stream::iter(paths.into_iter().map(Ok)))
        };
        deleting.try_flatten_stream().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let fault = self.fate(Kind::List, prefix.map(Path::as_ref).unwrap_or_default(), 0);
        self.clone().list_all(prefix.cloned(), fault).try_flatten_stream().boxed()
    }

    // Nothing above uses these; whoever begins to must meet the faults there as well.
    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(harm::unknown("put_multipart_opts"))
    }

    async fn get_ranges(&self, _: &Path, _: &[Range<u64>]) -> Result<Vec<Bytes>> {
        Err(harm::unknown("get_ranges"))
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(harm::unknown("list_with_delimiter"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(harm::unknown("copy_opts"))
    }
}
