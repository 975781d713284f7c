//! Everything that reads what a repository says, as functions of any bytes: the one list that the fuzz targets and the smoke test share.
//!
//! None may panic, and none may take memory that its input does not justify. What is read without an error must hold together: it can be
//! written again, and then reads the same.

use std::sync::Arc;

use keepset::model::entry::{Entry, Kind};
use keepset::model::id::Id;
use keepset::model::manifest::Manifest;
use keepset::model::mover_job::{MoverLine, MoverReport};
use keepset::model::path_text::{path_from_text, path_text};
use keepset::monitor::Silent;
use keepset::repository::bundle;
use keepset::repository::check::{CheckOptions, check};
use keepset::repository::codec::Decoder;
use keepset::repository::config::Config;
use keepset::repository::crypto::MasterKey;
use keepset::repository::index::{self, Index};
use keepset::repository::key::{KeyObject, Password};
use keepset::repository::lock::LockRecord;
use keepset::repository::nodes::Nodes;
use keepset::repository::pack::{self, BlobKind};
use keepset::repository::points::list_points;
use keepset::repository::prove::{packs_present, prove};
use keepset::repository::reader::Reader;
use keepset::repository::snapshot::Snapshot;
use keepset::repository::{Repository, snapshot, tree};
use keepset::store::Store;

use crate::crafted::Crafted;

/// Name and function of each.
pub const ENTRIES: &[(&str, fn(&[u8]))] = &[
    ("blob", blob),
    ("bundle", bundle_object),
    ("config", config),
    ("index", index_object),
    ("key", key),
    ("lock", lock),
    ("manifest", manifest),
    ("mover_line", mover_line),
    ("mover_report", mover_report),
    ("pack_header", pack_header),
    ("path_text", path_as_text),
    ("repository", repository),
    ("sealed", sealed),
    ("snapshot", snapshot_object),
    ("tree", tree_blob),
];

/// Runs the entry point of this name.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, entry) = ENTRIES.iter().find(|(entry, _)| *entry == name).expect("an entry point of the list");
    entry(bytes);
}

fn master() -> MasterKey {
    MasterKey::from_bytes(&[7; 64])
}

/// What can be read as JSON can be written and reads the same.
fn json<T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    let again = serde_json::to_vec(&value).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&again).expect("what was written can be read"), value);
    Some(value)
}

/// Four bytes of claimed length (0: none), then what is inside the envelope.
fn blob(bytes: &[u8]) {
    let Some((claim, inside)) = bytes.split_first_chunk() else { return };
    let claim = Some(u32::from_le_bytes(*claim)).filter(|claim| *claim != 0);
    let mut decoder = Decoder::new(&master()).expect("a decoder");
    let mut envelope = master().cipher().seal(inside).expect("random bytes");
    let id = keepset::repository::codec::id_of(inside);
    match decoder.decode(&id, &mut envelope, claim) {
        Ok(plain) => assert_eq!(keepset::repository::codec::id_of(plain), id),
        Err(_) => assert!(claim.is_some(), "a raw blob opens"),
    }
}

fn bundle_object(bytes: &[u8]) {
    let Some(objects) = bundle::decode(bytes.to_vec().into()) else { return };
    let objects: Vec<_> = objects.into_iter().map(|(_, object)| object).collect();
    assert_eq!(bundle::encode(&objects), bytes);
}

fn config(bytes: &[u8]) {
    if let Some(config) = json::<Config>(bytes) {
        let _ = config.chunker();
    }
}

fn index_object(bytes: &[u8]) {
    let Ok(packs) = index::decode(bytes) else { return };
    assert_eq!(index::decode(&index::encode(&packs)).expect("what was read can be read again"), packs);
    for (_, entries) in &packs {
        let _ = pack::size_of(entries);
    }
    let blobs: usize = packs.iter().map(|(_, entries)| entries.len()).sum();
    let all: Vec<Id> = packs.iter().flat_map(|(_, entries)| entries.iter().map(|entry| entry.id)).collect();
    let index = Index::of_packs(packs);
    assert_eq!(index.len(), blobs);
    for id in all {
        let place = index.find(BlobKind::Data, &id).or_else(|| index.find(BlobKind::Tree, &id)).expect("it is in the table");
        let _ = place.plain();
    }
}

fn key(bytes: &[u8]) {
    let Ok(object) = serde_json::from_slice::<KeyObject>(bytes) else { return };
    // What is allowed may still take seconds, which a fuzzer does not have.
    let cheap = object.n.saturating_mul(u64::from(object.r)).saturating_mul(u64::from(object.p)) <= 1 << 13;
    let refused = object.n > 1 << 30 || object.p > 1 << 24;
    if cheap || refused {
        let opened = object.open(&Password::chosen(b"password".to_vec()));
        assert!(!refused || opened.is_err());
    }
}

fn lock(bytes: &[u8]) {
    if let Some(record) = json::<LockRecord>(bytes) {
        let shown = record.describe(chrono::DateTime::UNIX_EPOCH);
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        let _ = record.owner_is_dead();
    }
}

fn manifest(bytes: &[u8]) {
    let Ok(mut manifest) = serde_json::from_slice::<Manifest>(bytes) else { return };
    // The cluster's own objects, in which no set has fractions: those may lose their last digit.
    manifest.set.objects.clear();
    json::<Manifest>(&serde_json::to_vec(&manifest).expect("what was read can be written")).expect("what was written can be read");
}

fn mover_line(bytes: &[u8]) {
    json::<MoverLine>(bytes);
}

fn mover_report(bytes: &[u8]) {
    json::<MoverReport>(bytes);
}

/// The entries of a header as they are before sealing.
fn pack_header(bytes: &[u8]) {
    let cipher = master().cipher();
    let mut header = cipher.seal(bytes).expect("random bytes");
    header.extend(u32::try_from(header.len()).unwrap_or(u32::MAX).to_le_bytes());
    if let Some(last) = bytes.last_chunk() {
        let _ = pack::header_size(*last, bytes.len() as u64);
    }
    // Whatever it lists, it must fill exactly what stands before the header.
    let listed: u64 = match pack::decode_header(&header, 0, &cipher) {
        Ok(entries) => entries.iter().map(|entry| u64::from(entry.length)).sum(),
        Err(reason) => reason.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(0),
    };
    if let Ok(entries) = pack::decode_header(&header, listed, &cipher) {
        let again = pack::encode_header(&entries, &cipher).expect("random bytes");
        assert_eq!(pack::decode_header(&again, listed, &cipher).expect("what was read can be read again"), entries);
    }
}

fn path_as_text(bytes: &[u8]) {
    let text = path_text(bytes);
    assert!(!text.chars().any(char::is_control));
    assert_eq!(path_from_text(&text), bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = path_from_text(text);
    }
}

/// An envelope itself.
fn sealed(bytes: &[u8]) {
    assert!(master().cipher().open(bytes).is_err(), "nobody finds a seal by trying");
}

fn snapshot_object(bytes: &[u8]) {
    json::<Snapshot>(bytes);
}

fn tree_blob(bytes: &[u8]) {
    let mut nodes = Nodes::new(bytes, bytes.len());
    let streamed: Result<Vec<Entry>, String> = std::iter::from_fn(|| nodes.next_entry().transpose()).collect();
    let Ok(entries) = tree::decode(bytes) else { return };
    if let Ok(streamed) = streamed {
        assert_eq!(streamed, entries);
    }
    assert!(entries.is_sorted_by(|a, b| a.name < b.name));
    for entry in &entries {
        let fine = !entry.name.is_empty() && entry.name != b"." && entry.name != b".." && !entry.name.iter().any(|c| matches!(c, b'/' | 0));
        assert!(fine, "{:?}", entry.name);
        assert_eq!(entry.attrs.mode & !0o7777, 0);
    }
    let again = tree::encode(&entries);
    let read = tree::decode(&again).expect("what was written can be read");
    assert_eq!(tree::encode(&read), again);
    assert_eq!(read.len(), entries.len());
}

/// A whole repository: parts split at bytes 0xff, each of a kind that its first byte tells (`t`ree, `d`ata, `s`napshot, `i`ndex object). 64
/// times the same hex digit in a part stands for the id of the blob with that number. What a program does with a repository that it does
/// not know is then done with it.
fn repository(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let repository = built(bytes).await;
        let options = CheckOptions { read_data: Some(100.0), seed: 0, workers: 1 };
        check(&repository, &options, &Silent).await.expect("damage is no error");
        let (index, _) = Index::load_readable(&repository).await.expect("memory answers");
        let reader = Reader::new(&repository, Arc::new(index));
        let points = list_points(&reader, None).await.expect("memory answers");
        let present = packs_present(&repository).await.expect("memory answers");
        for point in &points.points {
            for claim in &point.claims {
                let root = Entry { name: b"claim".to_vec(), kind: Kind::Dir { subtree: claim.tree }, attrs: claim.root.clone() };
                let _ = prove(&reader, vec![root], &present).await;
            }
        }
        if let Some(point) = points.points.last() {
            let _ = points.choose(&point.point.set, None, &keepset::repository::select::Selector::Latest, false, point.point.time.to_utc());
        }
    });
}

/// The repository that the bytes describe.
pub async fn built(bytes: &[u8]) -> Repository {
    let mut crafted = Crafted::new(Store::memory()).await;
    let mut ids: Vec<Id> = Vec::new();
    let mut snapshots = Vec::new();
    let mut indexes = Vec::new();
    for part in bytes.split(|byte| *byte == 0xff).take(16) {
        let Some((kind, body)) = part.split_first() else { continue };
        let body = with_ids(body, &ids);
        match kind {
            b't' => ids.push(crafted.add(BlobKind::Tree, &body)),
            b'd' => ids.push(crafted.add(BlobKind::Data, &body)),
            b's' => snapshots.push(body),
            _ => indexes.push(body),
        }
    }
    crafted.index().await;
    let repository = crafted.repository;
    for (folder, bodies) in [(snapshot::FOLDER, snapshots), (index::FOLDER, indexes)] {
        for body in bodies {
            repository.put_sealed(folder, &body).await.expect("memory takes it");
        }
    }
    repository
}

fn with_ids(part: &[u8], ids: &[Id]) -> Vec<u8> {
    let mut out = Vec::with_capacity(part.len());
    let mut rest = part;
    while let Some(first) = rest.first() {
        let number = char::from(*first).to_digit(16).and_then(|digit| ids.get(digit as usize));
        match number {
            Some(id) if rest.len() >= 64 && rest[..64].iter().all(|byte| byte == first) => {
                out.extend(id.hex().into_bytes());
                rest = &rest[64..];
            }
            _ => {
                out.push(*first);
                rest = &rest[1..];
            }
        }
    }
    out
}
