//! One file of a point as a line of text or JSON, and the way to it.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::cli::error::CliError;
use crate::clock::shown;
use crate::model::entry::{Attrs, Entry, Kind, Time};
use crate::model::id::Id;
use crate::model::path_text::{path_parts, path_text};
use crate::repository::error::RepositoryError;
use crate::repository::reader::Reader;

/// What `ls` and `diff` say of a file.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EntryView {
    /// From the claim down; bytes that are not UTF-8 are written `\xNN`.
    pub path: String,
    /// `file`, `dir`, `symlink`, `fifo`, `socket`, `charDevice` or `blockDevice`.
    pub kind: &'static str,
    /// Permission, set-id and sticky bits in octal.
    pub mode: String,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// RFC 3339 with nanoseconds.
    pub mtime: String,
    pub target: Option<String>,
}

impl EntryView {
    pub fn of(path: String, entry: &Entry) -> Self {
        let target = match &entry.kind {
            Kind::Symlink { target } => Some(path_text(target)),
            _ => None,
        };
        let attrs = &entry.attrs;
        EntryView {
            path,
            kind: kind(&entry.kind),
            mode: format!("{:04o}", attrs.mode),
            uid: attrs.uid,
            gid: attrs.gid,
            size: attrs.size,
            mtime: moment(attrs.mtime).map_or_else(String::new, |time| time.to_rfc3339_opts(SecondsFormat::Nanos, true)),
            target,
        }
    }
}

fn kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::File { .. } => "file",
        Kind::Dir { .. } => "dir",
        Kind::Symlink { .. } => "symlink",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::CharDevice { .. } => "charDevice",
        Kind::BlockDevice { .. } => "blockDevice",
    }
}

fn moment(time: Time) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.secs, time.nanos)
}

/// As `ls -l` writes it: kind and mode, owner, size, time, name.
pub fn long_line(name: &str, entry: &Entry) -> String {
    let attrs = &entry.attrs;
    let time = moment(attrs.mtime).map_or_else(|| attrs.mtime.secs.to_string(), |time| shown(time.fixed_offset()));
    let target = match &entry.kind {
        Kind::Symlink { target } => format!(" -> {}", path_text(target)),
        _ => String::new(),
    };
    format!("{} {:>6} {:>6} {:>12} {time} {name}{target}", letters(&entry.kind, attrs), attrs.uid, attrs.gid, attrs.size)
}

/// `-rwsr-xr-x`.
fn letters(kind: &Kind, attrs: &Attrs) -> String {
    let mut text = String::with_capacity(10);
    text.push(match kind {
        Kind::File { .. } => '-',
        Kind::Dir { .. } => 'd',
        Kind::Symlink { .. } => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::CharDevice { .. } => 'c',
        Kind::BlockDevice { .. } => 'b',
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = attrs.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, attrs.mode & special != 0) {
            (true, false) => 'x',
            (false, false) => '-',
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
        });
    }
    text
}

/// A claim's path and a name below it, joined as people read them.
pub fn join(path: &str, name: &[u8]) -> String {
    format!("{path}/{}", path_text(name))
}

/// The entry at `path` below a claim's tree; the path may be written as `ls` shows it.
pub async fn find(reader: &Reader, tree: Id, claim: &str, path: &str) -> anyhow::Result<Entry> {
    let mut tree = tree;
    let mut walked = claim.to_owned();
    let mut parts = path_parts(path).into_iter().peekable();
    while let Some(part) = parts.next() {
        let mut entries = reader.entries(&tree).await?;
        let is_it = |entry: &Entry| entry.name == part;
        let Some(entry) = entries.find(|entry| entry.as_ref().map_or(true, is_it)).transpose()? else {
            return Err(CliError::failed(
                format!("there is no `{}` in {walked}", path_text(&part)),
                format!("`keepset ls POINT {walked}` shows what there is"),
            )
            .into());
        };
        walked = join(&walked, &entry.name);
        if parts.peek().is_none() {
            return Ok(entry);
        }
        tree = subtree(&entry, &walked)?.ok_or_else(|| CliError::Failed { message: format!("{walked} is no folder"), hint: None })?;
    }
    Err(CliError::Failed { message: format!("{claim} is a claim, not a file"), hint: None }.into())
}

/// The tree of a folder; `None` for everything else.
pub fn subtree(entry: &Entry, path: &str) -> Result<Option<Id>, RepositoryError> {
    match &entry.kind {
        Kind::Dir { subtree: Some(tree) } => Ok(Some(*tree)),
        Kind::Dir { subtree: None } => Err(RepositoryError::damaged(path, "the folder has no tree")),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::content::Content;

    #[test]
    fn modes_read_as_ls_writes_them() {
        let show = |kind: Kind, mode| letters(&kind, &Attrs { mode, ..Attrs::default() });
        assert_eq!(show(Kind::File { content: Content::default() }, 0o4755), "-rwsr-xr-x");
        assert_eq!(show(Kind::Dir { subtree: None }, 0o1777), "drwxrwxrwt");
        assert_eq!(show(Kind::Fifo, 0o2640), "prw-r-S---");
    }
}
