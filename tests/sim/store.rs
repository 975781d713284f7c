//! A store in virtual time: requests travel, arrive or get lost, are answered or not, and go on without whoever sent them.
//!
//! Like the stores that are supported, it is consistent: a list shows whatever was put before it began. How long a request takes and what befalls it
//! follow from the seed, who sends it, and how many of its kind the sender has sent before; not from names.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryFutureExt, TryStreamExt};
use keepset::store::{Patience, Store};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};

use super::dice::{Dice, number_of};

/// When every simulation begins: 2026-01-01, in milliseconds since 1970.
pub const EPOCH: i64 = 1_767_225_600_000;

/// What befalls requests, each so many times in a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// The connection breaks before the store has done anything.
    pub lost_requests: u64,
    /// The store does it, and the connection breaks before its answer comes; of a delete, perhaps after half of it.
    pub lost_replies: u64,
    /// The store says that it is overloaded.
    pub busy: u64,
    /// The request or its answer takes up to [`SLOWEST`].
    pub slow: u64,
    /// No answer ever comes, whether the store does it or not.
    pub silent: u64,
}

/// A request arrives within this time or not at all: connections end before.
const SLOWEST: u64 = 20_000;

#[derive(Clone, Debug)]
pub struct Stored {
    pub bytes: Bytes,
    pub modified: DateTime<Utc>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Stored>,
    weather: Weather,
    requests: u64,
    trace: u64,
    log: Option<Vec<String>>,
    /// Breaks a promise of stores on purpose, to see whether that is noticed.
    forgets_packs: bool,
}

/// The store itself. Clones are the same one.
#[derive(Clone)]
pub struct Ground(Arc<Inner>);

struct Inner {
    seed: u64,
    began: Instant,
    state: Mutex<State>,
}

impl Ground {
    /// To be made within the runtime whose time it follows. `log` writes every request down.
    pub fn new(seed: u64, log: bool) -> Ground {
        let state = State { log: log.then(Vec::new), ..State::default() };
        Ground(Arc::new(Inner { seed, began: Instant::now(), state: Mutex::new(state) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    pub fn now(&self) -> DateTime<Utc> {
        let passed = i64::try_from(self.0.began.elapsed().as_millis()).unwrap();
        DateTime::from_timestamp_millis(EPOCH + passed).unwrap()
    }

    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// Requests may fail.
    pub fn is_rough(&self) -> bool {
        self.state().weather != Weather::default()
    }

    /// From now on, some packs that it has confirmed are gone after a while.
    pub fn forget_packs(&self) {
        self.state().forgets_packs = true;
    }

    /// Equal for two simulations in which the same happened at the same time.
    pub fn trace(&self) -> u64 {
        self.state().trace
    }

    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    pub fn log(&self) -> Vec<String> {
        self.state().log.clone().unwrap_or_default()
    }

    /// All objects below `folder`, as they are.
    pub fn below(&self, folder: &str) -> Vec<(String, Stored)> {
        let state = self.state();
        let inside = state.objects.iter().filter(|(key, _)| key.starts_with(folder));
        inside.map(|(key, stored)| (key.clone(), stored.clone())).collect()
    }

    pub fn bytes_below(&self, folder: &str) -> u64 {
        self.below(folder).iter().map(|(_, stored)| stored.bytes.len() as u64).sum()
    }

    /// Writes down what happened, at which time.
    pub fn note(&self, what: &str) {
        let at = u64::try_from(self.0.began.elapsed().as_millis()).unwrap();
        let mut state = self.state();
        state.trace = Dice::of(&[state.trace, at, number_of(what)]).next();
        if let Some(log) = &mut state.log {
            log.push(format!("{:>10}.{:03} {what}", at / 1000, at % 1000));
        }
    }
}

/// How a process ends before its work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Killed: what it was about to ask for is not asked.
    KilledBefore,
    /// Killed: what it has just asked for is done.
    KilledAfter,
    /// Asked to stop by its user.
    Interrupted,
}

/// One process that uses the store.
pub struct Life {
    name: String,
    key: u64,
    /// Nothing befalls its requests, and they take no time.
    spared: bool,
    counts: Mutex<HashMap<(&'static str, String), u64>>,
    ends: Mutex<Option<(u64, End)>>,
    dead: watch::Sender<bool>,
    asked_to_stop: watch::Sender<bool>,
}

impl Life {
    /// `ends` says at which of its requests it ends, and how.
    pub fn new(name: &str, seed: u64, ends: Option<(u64, End)>) -> Life {
        Life {
            name: name.to_owned(),
            key: Dice::of(&[seed, number_of(name)]).next(),
            spared: false,
            counts: Mutex::default(),
            ends: Mutex::new(ends),
            dead: watch::Sender::new(false),
            asked_to_stop: watch::Sender::new(false),
        }
    }

    /// One that stands outside of the story and looks at it.
    pub fn outside(name: &str) -> Life {
        Life { spared: true, ..Life::new(name, 0, None) }
    }

    pub fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// Returns when it is killed.
    pub async fn killed(&self) {
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }

    /// Turns true when its user asks it to stop.
    pub fn stop(&self) -> watch::Receiver<bool> {
        self.asked_to_stop.subscribe()
    }

    fn number(&self, kind: &'static str, key: &str) -> u64 {
        let folder = key.split('/').next().unwrap_or_default().to_owned();
        let mut counts = self.counts.lock().unwrap();
        let count = counts.entry((kind, folder.clone())).or_default();
        *count += 1;
        Dice::of(&[self.key, number_of(kind), number_of(&folder), *count]).next()
    }

    /// Counts a request, and says whether it is the last.
    fn tick(&self) -> Option<End> {
        let mut ends = self.ends.lock().unwrap();
        let (left, end) = ends.as_mut()?;
        if *left > 0 {
            *left -= 1;
            return None;
        }
        let end = *end;
        *ends = None;
        Some(end)
    }
}

/// The store as one process reaches it.
#[derive(Clone)]
pub struct Door {
    ground: Ground,
    pub life: Arc<Life>,
}

/// What becomes of one request.
struct Fate {
    there: Duration,
    back: Duration,
    lost: bool,
    busy: bool,
    unanswered: bool,
    silent: bool,
    /// Where its sender dies before it arrives, it does not.
    dies_too: bool,
    half: bool,
}

impl Fate {
    fn of(mut dice: Dice, weather: Weather) -> Fate {
        let way = |dice: &mut Dice| Duration::from_millis(if dice.happens(30) { dice.between(50, 900) } else { dice.between(1, 40) });
        let mut fate = Fate {
            there: way(&mut dice),
            back: way(&mut dice),
            lost: dice.happens(weather.lost_requests),
            busy: dice.happens(weather.busy),
            unanswered: dice.happens(weather.lost_replies),
            silent: dice.happens(weather.silent),
            dies_too: dice.happens(500),
            half: dice.happens(500),
        };
        if dice.happens(weather.slow) {
            let long = Duration::from_millis(dice.between(1000, SLOWEST));
            if dice.happens(500) { fate.there += long } else { fate.back += long }
        }
        fate
    }
}

type Effect<T> = Box<dyn FnOnce(&mut State, DateTime<Utc>, bool) -> Result<T> + Send>;

impl Door {
    pub fn new(ground: &Ground, life: Life) -> Door {
        Door { ground: ground.clone(), life: Arc::new(life) }
    }

    pub fn store(&self, patience: Patience) -> Store {
        Store::from_object_store(Arc::new(self.clone()), "sim", patience)
    }

    /// Sends a request. The effect is told whether it is to do half of its work only.
    async fn ask<T: Send + 'static>(&self, kind: &'static str, key: &str, effect: Effect<T>) -> Result<T> {
        let (ground, life) = (self.ground.clone(), Arc::clone(&self.life));
        if life.spared {
            let now = ground.now();
            return effect(&mut ground.state(), now, false);
        }
        if life.is_dead() {
            return std::future::pending().await;
        }
        let mut dice = Dice::of(&[ground.0.seed, life.number(kind, key)]);
        let fate = Fate::of(dice.clone(), ground.state().weather);
        let end = life.tick();
        let what = format!("{} {kind} {key}", life.name);
        match end {
            Some(End::KilledBefore | End::KilledAfter) => {
                ground.note(&format!("{what}: killed"));
                life.dead.send_replace(true);
            }
            Some(End::Interrupted) => {
                ground.note(&format!("{what}: interrupted"));
                let (life, later) = (Arc::clone(&life), Duration::from_millis(dice.between(1, 60)));
                tokio::spawn(async move {
                    sleep(later).await;
                    life.asked_to_stop.send_replace(true);
                });
            }
            None => {}
        }
        if end == Some(End::KilledBefore) {
            return std::future::pending().await;
        }
        let arrives = end == Some(End::KilledAfter) || !fate.dies_too;
        let (reply, answer) = oneshot::channel();
        tokio::spawn(async move {
            sleep(fate.there).await;
            if life.is_dead() && !arrives {
                return;
            }
            ground.state().requests += 1;
            let done = if fate.lost {
                Err(broken())
            } else if fate.busy {
                Err(overloaded())
            } else if fate.silent && fate.half {
                return;
            } else {
                let now = ground.now();
                effect(&mut ground.state(), now, fate.unanswered && fate.half)
            };
            ground.note(&format!("{what}: {}", if done.is_ok() { "done" } else { "failed" }));
            sleep(fate.back).await;
            if !fate.silent {
                // Its sender may have gone.
                let _ = reply.send(if fate.unanswered { Err(broken()) } else { done });
            }
        });
        match answer.await {
            Ok(done) => done,
            Err(_) => std::future::pending().await,
        }
    }
}

fn broken() -> Error {
    let source = HttpError::new(HttpErrorKind::Interrupted, std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    Error::Generic { store: "sim", source: Box::new(source) }
}

fn overloaded() -> Error {
    Error::Generic { store: "sim", source: "Server returned non-2xx status code: 503 Service Unavailable: <Code>SlowDown</Code>".into() }
}

fn missing(path: &str) -> Error {
    Error::NotFound { path: path.to_owned(), source: "there is no such object".into() }
}

fn meta(key: &str, stored: &Stored) -> ObjectMeta {
    ObjectMeta { location: Path::from(key), last_modified: stored.modified, size: stored.bytes.len() as u64, e_tag: None, version: None }
}

fn is_below(key: &str, folder: &str) -> bool {
    folder.is_empty() || key.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sim")
    }
}

fn unused<T>(operation: &str) -> Result<T> {
    Err(Error::NotImplemented { operation: operation.to_owned(), implementer: "sim".to_owned() })
}

#[async_trait::async_trait]
impl ObjectStore for Door {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let (key, bytes) = (location.to_string(), Bytes::from(payload));
        let path = key.clone();
        let effect = move |state: &mut State, modified: DateTime<Utc>, _half: bool| {
            if options.mode == PutMode::Create && state.objects.contains_key(&key) {
                return Err(Error::AlreadyExists { path: key, source: "it is there".into() });
            }
            // Modified by the second, as most stores tell it.
            let modified = modified - TimeDelta::milliseconds(modified.timestamp_subsec_millis().into());
            let forgotten = state.forgets_packs && key.starts_with("data/") && bytes.len() % 5 == 0;
            if !forgotten {
                state.objects.insert(key, Stored { bytes, modified });
            }
            Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
        };
        self.ask("put", &path, Box::new(effect)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let key = location.to_string();
        let path = key.clone();
        let kind = if options.head { "head" } else { "get" };
        let effect = move |state: &mut State, _now: DateTime<Utc>, _half: bool| {
            let stored = state.objects.get(&key).ok_or_else(|| missing(&key))?;
            let size = stored.bytes.len() as u64;
            let range = match options.range {
                None => 0..size,
                Some(GetRange::Bounded(range)) if range.start < size => range.start..range.end.min(size),
                Some(_) => return Err(Error::Generic { store: "sim", source: "416 Range Not Satisfiable".into() }),
            };
            let part = stored.bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
            let payload = GetResultPayload::Stream(stream::iter([Ok(part)]).boxed());
            Ok(GetResult { payload, meta: meta(&key, stored), range, attributes: Default::default(), extensions: Default::default() })
        };
        self.ask(kind, &path, Box::new(effect)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let door = self.clone();
        let deleting = async move {
            let paths: Vec<Path> = locations.try_collect().await?;
            let keys: Vec<String> = paths.iter().map(ToString::to_string).collect();
            let first = keys.first().cloned().unwrap_or_default();
            let effect = move |state: &mut State, _now: DateTime<Utc>, half: bool| {
                let count = if half { keys.len() / 2 } else { keys.len() };
                for key in &keys[..count] {
                    state.objects.remove(key);
                }
                Ok(())
            };
            door.ask("delete", &first, Box::new(effect)).await?;
            Ok::<_, Error>(stream::iter(paths.into_iter().map(Ok)))
        };
        deleting.try_flatten_stream().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (door, folder) = (self.clone(), prefix.map(ToString::to_string).unwrap_or_default());
        let listing = async move {
            let path = folder.clone();
            let effect = move |state: &mut State, _now: DateTime<Utc>, _half: bool| {
                let inside = state.objects.iter().filter(|(key, _)| is_below(key, &folder));
                Ok(inside.map(|(key, stored)| meta(key, stored)).collect::<Vec<_>>())
            };
            let listed = door.ask("list", &path, Box::new(effect)).await?;
            Ok::<_, Error>(stream::iter(listed.into_iter().map(Ok)))
        };
        listing.try_flatten_stream().boxed()
    }

    // Nothing above uses these; whoever begins to must be simulated there as well.
    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unused("put_multipart_opts")
    }

    async fn get_ranges(&self, _: &Path, _: &[Range<u64>]) -> Result<Vec<Bytes>> {
        unused("get_ranges")
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        unused("list_with_delimiter")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unused("copy_opts")
    }
}
