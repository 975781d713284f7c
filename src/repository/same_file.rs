//! Which names of a point are names of one file?

use crate::model::entry::{Entry, Kind};
use crate::repository::hash::Pieces;

/// What names of one file have in common. The inode alone does not tell: a file system gives it to another file once it is free, which
/// can happen while a volume is walked. So names belong together only if kind, size and content agree too; the names of any others are
/// files of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
    /// The first half of a hash of kind, size and content.
    what: [u8; 16],
}

impl FileId {
    /// `None` for a folder and for a file that has one name only.
    pub fn of(entry: &Entry) -> Option<FileId> {
        if entry.attrs.links <= 1 || matches!(entry.kind, Kind::Dir { .. }) {
            return None;
        }
        let mut pieces = Pieces::default();
        pieces.add(&entry.attrs.size.to_le_bytes());
        match &entry.kind {
            Kind::File { content } => {
                pieces.add(b"f");
                for run in content.runs() {
                    pieces.add(&run.id.0);
                    pieces.add(&run.count.to_le_bytes());
                }
            }
            Kind::Symlink { target } => {
                pieces.add(b"l");
                pieces.add(target);
            }
            Kind::Fifo => pieces.add(b"p"),
            Kind::Socket => pieces.add(b"s"),
            Kind::CharDevice { rdev } => pieces.add(&[b"c".as_slice(), &rdev.to_le_bytes()].concat()),
            Kind::BlockDevice { rdev } => pieces.add(&[b"b".as_slice(), &rdev.to_le_bytes()].concat()),
            Kind::Dir { .. } => {}
        }
        let hash = pieces.finish();
        let mut what = [0; 16];
        what.copy_from_slice(&hash.0[..16]);
        Some(FileId { device: entry.attrs.device, inode: entry.attrs.inode, what })
    }
}

#[cfg(test)]
mod tests {
    use crate::model::entry::Attrs;
    use crate::model::id::Id;

    use super::*;

    #[test]
    fn names_are_one_file_only_if_inode_kind_size_and_content_agree() {
        let entry = |kind: Kind, inode: u64, size: u64, links: u64| Entry {
            name: b"x".to_vec(),
            kind,
            attrs: Attrs { inode, size, links, device: 1, ..Attrs::default() },
        };
        let file =
            |byte: u8, inode, size, links| FileId::of(&entry(Kind::File { content: vec![Id([byte; 32])].into() }, inode, size, links));
        assert_eq!(file(1, 7, 3, 2), file(1, 7, 3, 3));
        assert_ne!(file(1, 7, 3, 2), file(2, 7, 3, 2));
        assert_ne!(file(1, 7, 3, 2), file(1, 8, 3, 2));
        assert_ne!(file(1, 7, 3, 2), file(1, 7, 4, 2));
        assert_eq!(file(1, 7, 3, 1), None);
        let empty = FileId::of(&entry(Kind::File { content: Vec::new().into() }, 7, 0, 2));
        let others =
            [Kind::Fifo, Kind::Socket, Kind::CharDevice { rdev: 0 }, Kind::BlockDevice { rdev: 0 }, Kind::Symlink { target: vec![] }];
        for kind in others {
            assert_ne!(FileId::of(&entry(kind.clone(), 7, 0, 2)), empty, "{kind:?}");
        }
        assert_eq!(FileId::of(&entry(Kind::Dir { subtree: None }, 7, 0, 2)), None);
    }
}
