//! How far the times of a volume's files tell of writes: by the kind of its file system and the kernel's habits.

use rustix::fs::fstatfs;

use crate::volume::dir::Dir;

/// What an unchanged size, mtime and ctime says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// That it was not written to. Times are those of this machine's clock.
    Own,
    /// The same, but times are those of another machine's clock, which may be behind this one's.
    Foreign,
    /// Nothing: there are writes that leave no trace in them.
    Mute,
}

/// Numbers of `statfs(2)`. Writes through a mapping that is writable already never touch the times of a file in memory (tmpfs, ramfs), and
/// what a program (FUSE), a hypervisor (9p, shared folders) or FAT calls a ctime may be no more than the mtime, which anybody can set.
const MUTE: &[u64] = &[
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x9584_58f6, // hugetlbfs
    0x6573_5546, // FUSE, virtiofs
    0x0102_1997, // 9p
    0x786f_4256, // VirtualBox shared folders
    0x7c7c_6673, // Parallels shared folders
    0x00c0_ffee, // host file system of user-mode Linux
    0x4d44,      // FAT
    0x2011_bab0, // exFAT
];
/// The server, or the member that wrote last, sets the times.
const FOREIGN: &[u64] = &[
    0x6969,      // NFS
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB 2 and later
    0x00c3_6400, // Ceph
    0x0bd0_0bd0, // Lustre
    0x4750_4653, // GPFS
    0x1983_0326, // BeeGFS
    0x5346_414f, // OpenAFS
    0x6b41_4653, // AFS
    0x7375_7245, // Coda
    0x564c,      // NCP
    0x0116_1970, // GFS2
    0x7461_636f, // OCFS2
    0xaad7_aaea, // PanFS
    0x2030_528e, // OrangeFS
];

fn of_kind(magic: u64) -> Times {
    match magic {
        magic if MUTE.contains(&magic) => Times::Mute,
        magic if FOREIGN.contains(&magic) => Times::Foreign,
        _ => Times::Own,
    }
}

impl Dir {
    /// What times are worth on the file system that the folder is on. One that does not say what it is gets no trust.
    pub fn times(&self) -> Times {
        #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast, reason = "a number of 32 bits, whose field differs by architecture")]
        fstatfs(self).map_or(Times::Mute, |found| of_kind(found.f_type as u64 & 0xffff_ffff))
    }
}

/// How long, in seconds, a page may stay dirty: a write through a mapping touches the times only with the first store after the page was
/// written out. `None` where the kernel writes nothing out by itself.
pub fn dirty_seconds() -> Option<i64> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/vm/{name}")).ok();
    match (read("dirty_expire_centisecs"), read("dirty_writeback_centisecs")) {
        (Some(expire), Some(every)) => dirty_seconds_of(&expire, &every),
        _ => Some(0), // not to be had here: the kernel's own values, 35 seconds, are well within any margin
    }
}

fn dirty_seconds_of(expire: &str, every: &str) -> Option<i64> {
    let (expire, every): (i64, i64) = (expire.trim().parse().ok()?, every.trim().parse().ok()?);
    (every > 0).then(|| expire.saturating_add(every) / 100)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn times_are_judged_by_the_kind_of_file_system() {
        assert_eq!(of_kind(0xef53), Times::Own); // ext4
        assert_eq!(of_kind(0x5846_5342), Times::Own); // XFS
        assert_eq!(of_kind(0x9123_683e), Times::Own); // btrfs
        assert_eq!(of_kind(0x6969), Times::Foreign);
        assert_eq!(of_kind(0xff53_4d42), Times::Foreign);
        assert_eq!(of_kind(0x6573_5546), Times::Mute);
        assert_eq!(Dir::open_root(Path::new("/dev/shm")).unwrap().times(), Times::Mute);
    }

    #[test]
    fn a_kernel_that_writes_back_late_or_never_is_noticed() {
        assert_eq!(dirty_seconds_of("3000\n", "500\n"), Some(35));
        assert_eq!(dirty_seconds_of("60000\n", "60000\n"), Some(1200));
        assert_eq!(dirty_seconds_of("3000\n", "0\n"), None);
        assert!(dirty_seconds().is_none_or(|seconds| seconds >= 0));
    }
}
