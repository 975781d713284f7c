//! `keepset diff`: what two points have apart from each other.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde::Serialize;

use crate::cli::entries;
use crate::cli::exit::ExitCode;
use crate::cli::output::Output;
use crate::cli::view;
use crate::cli::wire::Wire;
use crate::cli::words;
use crate::model::entry::{Entry, Kind};
use crate::model::id::Id;
use crate::repository::entries::Entries;
use crate::repository::points::{StoredPoint, list_points};
use crate::repository::reader::Reader;

/// Tell what changed between two points
///
/// Examples:
///   keepset diff 1a2b3c4d 5e6f7a8b
///
/// Each line is + added, - removed, M other bytes, T another kind of file, or U other attributes
/// only, then the path and the size. Folders that are alike in both points are not read.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Diff {
    /// The point to start from
    from: String,
    /// The point to compare with it
    to: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Change {
    Added,
    Removed,
    /// Other bytes, or another target or device.
    Modified,
    /// Another kind of file.
    Retyped,
    /// Mode, owner, times or extended attributes only.
    Attributes,
}

impl Change {
    fn sign(self) -> char {
        match self {
            Change::Added => '+',
            Change::Removed => '-',
            Change::Modified => 'M',
            Change::Retyped => 'T',
            Change::Attributes => 'U',
        }
    }
}

/// One line of the answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    change: Change,
    path: &'a str,
    /// Bytes before; absent where there was nothing.
    size_before: Option<u64>,
    size_after: Option<u64>,
}

/// The last line with `--json`.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    added: u64,
    removed: u64,
    modified: u64,
    attributes: u64,
    added_bytes: u64,
    removed_bytes: u64,
}

/// Compares two points claim by claim.
pub async fn run(args: &Diff, wire: &Wire) -> anyhow::Result<ExitCode> {
    let reader = wire.reader().await?;
    let points = list_points(&reader, None).await?;
    let (from, to) = (view::pick(&points, &args.from, wire)?, view::pick(&points, &args.to, wire)?);
    let mut differ = Differ { reader: &reader, output: wire.output, summary: Summary::default() };
    let names: BTreeSet<_> = claims(from).chain(claims(to)).map(|(id, name, _)| (id, name)).collect();
    for (_, name) in names {
        let tree = |point: &StoredPoint| claims(point).find(|(_, other, _)| *other == name).and_then(|(.., tree)| tree);
        differ.trees(&name, tree(from), tree(to)).await?;
    }
    let sum = differ.summary;
    if wire.output.is_json() {
        wire.output.json_line(&serde_json::json!({ "summary": sum }))?;
    } else {
        wire.output.note(&format!(
            "{} added ({}), {} removed ({}), {} modified, {} with other attributes only",
            sum.added,
            words::bytes(sum.added_bytes),
            sum.removed,
            words::bytes(sum.removed_bytes),
            sum.modified,
            sum.attributes
        ));
    }
    Ok(ExitCode::Done)
}

fn claims(point: &StoredPoint) -> impl Iterator<Item = (crate::model::claim::ClaimId, String, Option<Id>)> + '_ {
    point.claims.iter().map(|claim| (claim.record.id.clone(), claim.record.name.clone(), claim.tree))
}

struct Differ<'a> {
    reader: &'a Reader,
    output: Output,
    summary: Summary,
}

impl Differ<'_> {
    /// Walks two trees side by side; `None` is an empty one. A stack instead of recursion: depth costs no call frames.
    async fn trees(&mut self, path: &str, from: Option<Id>, to: Option<Id>) -> anyhow::Result<()> {
        let mut waiting = vec![(path.to_owned(), from, to)];
        while let Some((path, from, to)) = waiting.pop() {
            if from == to {
                continue;
            }
            let below = waiting.len();
            let (mut olds, mut news) = (self.read(from).await?, self.read(to).await?);
            let (mut old, mut new) = (olds.next().transpose()?, news.next().transpose()?);
            loop {
                let order = match (&old, &new) {
                    (None, None) => break,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (Some(a), Some(b)) => a.name.cmp(&b.name),
                };
                let (mut a, mut b) = (None, None);
                if order.is_le() {
                    a = std::mem::replace(&mut old, olds.next().transpose()?);
                }
                if order.is_ge() {
                    b = std::mem::replace(&mut new, news.next().transpose()?);
                }
                let Some(name) = a.as_ref().or(b.as_ref()).map(|entry| entry.name.clone()) else { break };
                let path = entries::join(&path, &name);
                self.pair(&path, a.as_ref(), b.as_ref())?;
                let tree = |entry: Option<&Entry>| entry.map_or(Ok(None), |entry| entries::subtree(entry, &path));
                let (a, b) = (tree(a.as_ref())?, tree(b.as_ref())?);
                if a != b {
                    waiting.push((path, a, b));
                }
            }
            // Taken from the end, so what was found first has to stand last.
            waiting[below..].reverse();
        }
        Ok(())
    }

    async fn read(&self, tree: Option<Id>) -> anyhow::Result<Entries> {
        Ok(match tree {
            Some(tree) => self.reader.entries(&tree).await?,
            None => Entries::default(),
        })
    }

    fn pair(&mut self, path: &str, old: Option<&Entry>, new: Option<&Entry>) -> anyhow::Result<()> {
        let size = |entry: &Entry| entry.attrs.size;
        let change = match (old, new) {
            (None, Some(_)) => Change::Added,
            (Some(_), None) => Change::Removed,
            (Some(old), Some(new)) => match compare(old, new) {
                Some(change) => change,
                None => return Ok(()),
            },
            (None, None) => return Ok(()),
        };
        let sum = &mut self.summary;
        match change {
            Change::Added => sum.added += 1,
            Change::Removed => sum.removed += 1,
            Change::Modified | Change::Retyped => sum.modified += 1,
            Change::Attributes => sum.attributes += 1,
        }
        if change == Change::Added {
            sum.added_bytes = sum.added_bytes.saturating_add(new.map_or(0, size));
        }
        if change == Change::Removed {
            sum.removed_bytes = sum.removed_bytes.saturating_add(old.map_or(0, size));
        }
        let line = Line { change, path, size_before: old.map(size), size_after: new.map(size) };
        if self.output.is_json() {
            return Ok(self.output.json_line(&line)?);
        }
        let sizes = match (change, line.size_before, line.size_after) {
            (Change::Modified, Some(before), Some(after)) if before != after => {
                format!("  {} -> {}", words::bytes(before), words::bytes(after))
            }
            (Change::Attributes, ..) => String::new(),
            (_, _, Some(after)) if new.is_some_and(is_file) => format!("  {}", words::bytes(after)),
            (_, Some(before), None) if old.is_some_and(is_file) => format!("  {}", words::bytes(before)),
            _ => String::new(),
        };
        let slash = if new.or(old).is_some_and(|entry| matches!(entry.kind, Kind::Dir { .. })) { "/" } else { "" };
        Ok(self.output.line(&format!("{} {path}{slash}{sizes}", change.sign()))?)
    }
}

fn is_file(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::File { .. })
}

/// How two entries of one name differ, if they do. What a restore does not bring back (inode, ctime, atime) is no difference, and a
/// folder's changed content is told by its entries.
fn compare(old: &Entry, new: &Entry) -> Option<Change> {
    let same = match (&old.kind, &new.kind) {
        (Kind::Dir { .. }, Kind::Dir { .. }) => true,
        (a, b) if std::mem::discriminant(a) != std::mem::discriminant(b) => return Some(Change::Retyped),
        (a, b) => a == b,
    };
    if !same {
        return Some(Change::Modified);
    }
    let (a, b) = (&old.attrs, &new.attrs);
    let is_dir = matches!(new.kind, Kind::Dir { .. });
    let alike = (a.mode, a.uid, a.gid) == (b.mode, b.uid, b.gid) && a.xattrs == b.xattrs && (is_dir || a.mtime == b.mtime);
    (!alike).then_some(Change::Attributes)
}

#[cfg(test)]
mod tests {
    use crate::model::entry::Attrs;

    use super::*;

    fn file(byte: u8, attrs: Attrs) -> Entry {
        Entry { name: b"f".to_vec(), kind: Kind::File { content: vec![Id([byte; 32])].into() }, attrs }
    }

    #[test]
    fn other_bytes_are_told_apart_from_other_attributes() {
        let plain = file(1, Attrs::default());
        assert_eq!(compare(&plain, &file(1, Attrs { inode: 7, ..Attrs::default() })), None);
        assert_eq!(compare(&plain, &file(2, Attrs { mode: 0o600, ..Attrs::default() })), Some(Change::Modified));
        assert_eq!(compare(&plain, &file(1, Attrs { mode: 0o600, ..Attrs::default() })), Some(Change::Attributes));
        assert_eq!(compare(&plain, &Entry { kind: Kind::Fifo, ..plain.clone() }), Some(Change::Retyped));
    }
}
