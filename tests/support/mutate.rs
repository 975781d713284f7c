//! Changes a file tree on disk as users and programs do, the same for the same seed.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, XattrFlags, linkat, lsetxattr, mknodat};

use super::tree::{Dice, acl, is_root};

/// Makes about `changes` changes below `root` and says each. A change that finds nothing to act on is left out.
pub fn mutate(root: &Path, seed: u64, changes: usize) -> Vec<String> {
    let mut dice = Dice(seed);
    let mut said = Vec::new();
    for number in 0..changes {
        let all = all_below(root);
        if let Some(what) = change(root, &all, number, &mut dice) {
            said.push(what);
        }
    }
    said
}

/// Every path below `root`, folders before what is in them, in a fixed order.
fn all_below(root: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        let mut paths: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        todo.extend(paths.iter().filter(|path| is_dir(path)).cloned());
        all.extend(paths);
    }
    all
}

fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).unwrap().is_dir()
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).unwrap().is_file()
}

fn change(root: &Path, all: &[PathBuf], number: usize, dice: &mut Dice) -> Option<String> {
    let dirs: Vec<&PathBuf> = all.iter().filter(|path| is_dir(path)).collect();
    let dir = if dirs.is_empty() || dice.below(4) == 0 { root.to_owned() } else { dirs[dice.below(dirs.len())].clone() };
    let new = dir.join(format!("new-{number}-{:x}", dice.below(1 << 16)));
    let pick = |dice: &mut Dice, wanted: &dyn Fn(&Path) -> bool| {
        let found: Vec<&PathBuf> = all.iter().filter(|path| wanted(path)).collect();
        (!found.is_empty()).then(|| found[dice.below(found.len())].clone())
    };
    let any = |_: &Path| true;
    let not_symlink = |path: &Path| !fs::symlink_metadata(path).unwrap().is_symlink();
    let say = |what: &str, path: &Path| Some(format!("{what} {}", path.display()));
    match dice.below(15) {
        0 => {
            let length = dice.below(100_000);
            fs::write(&new, dice.bytes(length)).unwrap();
            say("add file", &new)
        }
        1 => {
            fs::create_dir(&new).unwrap();
            fs::write(new.join("in"), "it").unwrap();
            say("add folder", &new)
        }
        2 => {
            let path = pick(dice, &any)?;
            if is_dir(&path) { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.unwrap();
            say("remove", &path)
        }
        3 => {
            let path = pick(dice, &|path| !dir.starts_with(path))?;
            fs::rename(&path, &new).unwrap();
            say("move", &path)
        }
        4 => {
            let path = pick(dice, &is_file)?;
            let file = File::options().write(true).open(&path).unwrap();
            let size = file.metadata().unwrap().len();
            file.write_all_at(&dice.bytes(100), size).unwrap();
            say("append to", &path)
        }
        5 => {
            let path = pick(dice, &|path| is_file(path) && fs::metadata(path).unwrap().len() > 0)?;
            let file = File::options().read(true).write(true).open(&path).unwrap();
            let at = dice.next() % file.metadata().unwrap().len();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[!byte[0]], at).unwrap();
            say("flip a byte in", &path)
        }
        6 => {
            let path = pick(dice, &is_file)?;
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
            say("cut", &path)
        }
        7 => {
            let path = pick(dice, &not_symlink)?;
            let mode = fs::metadata(&path).unwrap().permissions().mode() ^ 0o011;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            say("change the mode of", &path)
        }
        8 if is_root() => {
            let path = pick(dice, &any)?;
            lchown(&path, Some(u32::try_from(dice.below(70_000)).unwrap()), None).unwrap();
            say("give away", &path)
        }
        9 => {
            let path = pick(dice, &is_file)?;
            let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(dice.next() >> 33, 7));
            File::open(&path).unwrap().set_times(times).unwrap();
            say("date", &path)
        }
        10 => {
            let path = pick(dice, &|path| is_file(path) || is_dir(path))?;
            lsetxattr(&path, "user.changed", &dice.bytes(20), XattrFlags::empty()).unwrap();
            say("set an extended attribute of", &path)
        }
        11 => {
            let path = pick(dice, &|path| is_file(path) || is_dir(path))?;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            lsetxattr(&path, "system.posix_acl_access", &acl(mode), XattrFlags::empty()).unwrap();
            say("set an ACL of", &path)
        }
        12 => {
            let path = pick(dice, &|path| !is_dir(path))?;
            linkat(CWD, &path, CWD, &new, AtFlags::empty()).unwrap();
            say("link", &path)
        }
        13 => {
            symlink("elsewhere", &new).unwrap();
            say("add symlink", &new)
        }
        _ => {
            let path = pick(dice, &|path| !is_dir(path))?;
            fs::remove_file(&path).unwrap();
            mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
            say("replace by a FIFO", &path)
        }
    }
}
