//! Sets attributes in the one order in which none undoes another: owner, extended attributes, mode, ACLs, times.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fremovexattr,
    fsetxattr, fstat, futimens, lremovexattr, lsetxattr, openat, utimensat,
};
use rustix::io::Errno;

use crate::model::entry::{Attrs, Time, Xattr};
use crate::model::mover_job::{Problem, ProblemKind};
use crate::model::path_text::path_text;
use crate::volume::dir::Dir;
use crate::volume::error::VolumeError;
use crate::volume::file::OpenFile;
use crate::volume::output::TargetFile;
use crate::volume::stat::Stat;
use crate::volume::xattr::{self, ReadXattrs, XattrsOf, list_long, proc_path};

/// The ACL that new entries of a folder inherit.
const DEFAULT_ACL: &str = "system.posix_acl_default";

const ANY_ACL: &str = "system.posix_acl_";

/// A label that the host's policy gives to every file. It is restored where that works; where not, the host's own stands and nothing is lost.
const HOSTS_LABEL: &str = "security.selinux";

/// What a program may do whoever starts it: as a set-id bit, never to be left on other bytes than those it was given to.
const CAPABILITIES: &[u8] = b"security.capability";

const SET_ID: u32 = 0o6000;

/// Brings attributes back as far as this process may, and tells what it may not.
#[derive(Debug)]
pub(super) struct Finisher {
    uid: u32,
    gid: u32,
    /// The root, or a folder that was there before, may have a default ACL: whatever is made below it starts with one that must go.
    inherits_acl: bool,
    /// The same with the set-gid bit: whatever is made below it starts with the folder's group.
    inherits_group: bool,
}

/// Where an entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This run made it: it has no attributes but inherited ones.
    Made,
    /// It was there before: what it has and the record has not must go, and what it has already is not set again.
    Found,
}

/// One entry while its attributes are set.
struct Subject<'a> {
    on: On<'a>,
    path: &'a dyn Fn() -> String,
    problems: Vec<Problem>,
}

/// What a problem with times begins with.
const TIMES: &str = "times";

#[derive(Clone, Copy)]
enum On<'a> {
    Fd(BorrowedFd<'a>),
    /// An entry that cannot be opened, and whether it is a symlink.
    Name {
        dir: BorrowedFd<'a>,
        name: &'a [u8],
        proc: &'a [u8],
        is_symlink: bool,
    },
}

impl Finisher {
    /// For a volume with this root; `replaces`: it may hold folders with whatever attributes.
    pub(super) fn new(root: &Attrs, replaces: bool) -> Self {
        Finisher {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            inherits_acl: replaces || root.xattrs.iter().any(|xattr| xattr.name == DEFAULT_ACL),
            inherits_group: replaces || root.mode & 0o2000 != 0,
        }
    }

    /// Whether a new file belongs to the right owner and group at once.
    pub(super) fn is_mine(&self, attrs: &Attrs) -> bool {
        attrs.uid == self.uid && attrs.gid == self.gid && !self.inherits_group
    }

    fn extra(&self, origin: Origin) -> Extra {
        match origin {
            Origin::Found => Extra::All,
            Origin::Made if self.inherits_acl => Extra::Acls,
            Origin::Made => Extra::None,
        }
    }

    pub(super) fn file(&self, file: &TargetFile, attrs: &Attrs, origin: Origin) -> Result<Vec<Problem>, VolumeError> {
        let now = fstat(file).map_err(|errno| file.error("look at", errno.into()))?.into();
        Ok(self.opened(file.as_fd(), &now, &|| path_text(&file.path()), attrs, origin))
    }

    /// A file that stands beside the one named `name` until it takes its place.
    pub(super) fn beside(&self, file: &TargetFile, dir: &Dir, name: &[u8], attrs: &Attrs) -> Result<Vec<Problem>, VolumeError> {
        let now = fstat(file).map_err(|errno| file.error("look at", errno.into()))?.into();
        Ok(self.opened(file.as_fd(), &now, &|| path_text(&dir.path_of(name)), attrs, Origin::Made))
    }

    /// A file that was there before and whose bytes are right.
    pub(super) fn kept(&self, dir: &Dir, name: &[u8], file: &OpenFile, attrs: &Attrs) -> Result<Vec<Problem>, VolumeError> {
        let now = file.restat().map_err(|source| VolumeError::Io { operation: "look at", path: dir.text_of(name), source })?;
        Ok(self.opened(file.as_fd(), &now, &|| path_text(&dir.path_of(name)), attrs, Origin::Found))
    }

    pub(super) fn dir(&self, dir: &Dir, attrs: &Attrs, origin: Origin) -> Result<Vec<Problem>, VolumeError> {
        let now = fstat(dir).map_err(|errno| dir.error("look at", b"", errno))?.into();
        Ok(self.opened(dir.as_fd(), &now, &|| path_text(&dir.path_of(b"")), attrs, origin))
    }

    /// The volume's root, which may belong to root while its content belongs to this user: only an owner can set times, and those of the root
    /// tell nobody anything.
    pub(super) fn root(&self, dir: &Dir, attrs: &Attrs) -> Result<Vec<Problem>, VolumeError> {
        let now: Stat = fstat(dir).map_err(|errno| dir.error("look at", b"", errno))?.into();
        let mut problems = self.opened(dir.as_fd(), &now, &|| path_text(&dir.path_of(b"")), attrs, Origin::Found);
        if self.uid != 0 && now.uid != self.uid && now.uid == attrs.uid {
            problems.retain(|problem| !problem.reason.starts_with(TIMES));
        }
        Ok(problems)
    }

    fn opened(&self, fd: BorrowedFd<'_>, now: &Stat, path: &dyn Fn() -> String, attrs: &Attrs, origin: Origin) -> Vec<Problem> {
        let mut subject = Subject { on: On::Fd(fd), path, problems: Vec::new() };
        subject.finish(now, attrs, self.extra(origin));
        subject.problems
    }

    /// A symlink, FIFO, socket or device.
    pub(super) fn unopened(
        &self,
        dir: &Dir,
        name: &[u8],
        is_symlink: bool,
        attrs: &Attrs,
        origin: Origin,
    ) -> Result<Vec<Problem>, VolumeError> {
        let now = dir.stat_of(name)?;
        let proc = proc_path(dir.as_fd(), name);
        let on = On::Name { dir: dir.as_fd(), name, proc: &proc, is_symlink };
        let mut subject = Subject { on, path: &|| path_text(&dir.path_of(name)), problems: Vec::new() };
        let extra = match self.extra(origin) {
            Extra::Acls if is_symlink => Extra::None, // symlinks inherit none
            extra => extra,
        };
        subject.finish(&now, attrs, extra);
        Ok(subject.problems)
    }
}

/// Which extended attributes go that the record does not have. Those of `security.` are the host's and stay, but for a file's capabilities.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extra {
    None,
    Acls,
    All,
}

impl Subject<'_> {
    fn finish(&mut self, now: &Stat, attrs: &Attrs, extra: Extra) {
        let mut mode = attrs.mode & 0o7777;
        let other_owner = now.uid != attrs.uid || now.gid != attrs.gid;
        if other_owner && !self.set_owner(now, attrs) {
            mode &= !SET_ID; // a set-id bit that gives another user's rights than the one that was saved would be a hole
        }
        let has = if extra == Extra::All { self.xattrs() } else { Vec::new() };
        if extra != Extra::None {
            self.remove_extra(&attrs.xattrs, extra);
        }
        let missing = attrs.xattrs.iter().filter(|xattr| !has.contains(xattr));
        let (mut acls, others): (Vec<&Xattr>, Vec<&Xattr>) = missing.partition(|xattr| is_acl(xattr));
        // Before the mode, which may close the file to us; after the owner, whose change removes capabilities.
        for xattr in others {
            self.set_xattr(xattr);
        }
        let owner_took_set_id = other_owner && mode & SET_ID != 0;
        if !self.is_symlink() && (now.mode != mode || owner_took_set_id || !acls.is_empty()) {
            let result = self.chmod(Mode::from_raw_mode(mode));
            self.note(result, || format!("mode {mode:04o}"));
            acls = attrs.xattrs.iter().filter(|xattr| is_acl(xattr)).collect(); // the new mode may have changed what stood there
        }
        for xattr in acls {
            self.set_xattr(xattr);
        }
        if extra != Extra::All || now.mtime != attrs.mtime || now.atime != attrs.atime {
            self.set_times(attrs);
        }
    }

    /// What the entry has now; nothing where that cannot be told.
    fn xattrs(&self) -> Vec<Xattr> {
        match xattr::read(self.xattrs_of()) {
            Ok(ReadXattrs::All(xattrs)) => xattrs,
            Ok(ReadXattrs::BadName) | Err(_) => Vec::new(),
        }
    }

    fn xattrs_of(&self) -> XattrsOf<'_> {
        match self.on {
            On::Fd(fd) => XattrsOf::Fd(fd),
            On::Name { proc, .. } => XattrsOf::Path(proc),
        }
    }

    fn is_symlink(&self) -> bool {
        matches!(self.on, On::Name { is_symlink: true, .. })
    }

    fn set_owner(&mut self, now: &Stat, attrs: &Attrs) -> bool {
        let (uid, gid) = (attrs.uid, attrs.gid);
        let nobody = u32::MAX; // to the kernel: leave as it is
        let result = if uid == nobody || gid == nobody { Err(Errno::INVAL) } else { self.chown(Some(uid), Some(gid)) };
        if result.is_err() && now.gid != gid && gid != nobody {
            let _ = self.chown(None, Some(gid)); // a member of the group may still give it; the problem below is told either way
        }
        self.note(result, || format!("owner {uid}:{gid}"));
        result.is_ok()
    }

    fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        match self.on {
            On::Fd(fd) => fchown(fd, uid, gid),
            On::Name { dir, name, .. } => chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn chmod(&self, mode: Mode) -> Result<(), Errno> {
        match self.on {
            On::Fd(fd) => fchmod(fd, mode),
            // The call by name follows symlinks; through a descriptor that only names the entry it cannot.
            On::Name { dir, name, .. } => {
                let fd = openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                chmodat(CWD, format!("/proc/self/fd/{}", fd.as_raw_fd()), mode, AtFlags::empty())
            }
        }
    }

    fn set_xattr(&mut self, xattr: &Xattr) {
        let (name, value) = (xattr.name.as_str(), xattr.value.as_slice());
        let result = match self.on {
            On::Fd(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
            On::Name { proc, .. } => lsetxattr(proc, name, value, XattrFlags::empty()),
        };
        if name != HOSTS_LABEL {
            self.note(result, || format!("extended attribute {}", path_text(name.as_bytes())));
        }
    }

    fn remove_extra(&mut self, wanted: &[Xattr], extra: Extra) {
        let Ok(names) = list_long(self.xattrs_of()) else { return }; // a file system without extended attributes has no extra ones
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let is_hosts = name.starts_with(b"security.") && name != CAPABILITIES;
            let goes = name.starts_with(ANY_ACL.as_bytes()) || (extra == Extra::All && !is_hosts);
            if !goes || wanted.iter().any(|xattr| xattr.name.as_bytes() == name) {
                continue;
            }
            let result = match self.on {
                On::Fd(fd) => fremovexattr(fd, name),
                On::Name { proc, .. } => lremovexattr(proc, name),
            };
            self.note(result, || format!("removal of extended attribute {}", path_text(name)));
        }
    }

    fn set_times(&mut self, attrs: &Attrs) {
        let times = Timestamps { last_access: timespec(attrs.atime), last_modification: timespec(attrs.mtime) };
        let result = match self.on {
            On::Fd(fd) => futimens(fd, &times),
            On::Name { dir, name, .. } => utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW),
        };
        let is_time = |time: Time| time.nanos < 1_000_000_000;
        let result = if is_time(attrs.atime) && is_time(attrs.mtime) { result } else { Err(Errno::INVAL) };
        self.note(result, || TIMES.to_owned());
    }

    fn note(&mut self, result: Result<(), Errno>, what: impl Fn() -> String) {
        if let Err(errno) = result {
            let reason = format!("{} not set: {}", what(), std::io::Error::from(errno));
            self.problems.push(Problem { path: (self.path)(), kind: ProblemKind::Attribute, reason });
        }
    }
}

fn is_acl(xattr: &Xattr) -> bool {
    xattr.name.starts_with(ANY_ACL)
}

/// A time whose nanoseconds are no nanoseconds (the kernel gives two such values a meaning) is left as it is.
fn timespec(time: Time) -> Timespec {
    let nanos = if time.nanos < 1_000_000_000 { time.nanos.into() } else { UTIME_OMIT };
    Timespec { tv_sec: time.secs, tv_nsec: nanos }
}
