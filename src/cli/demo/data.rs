//! The demo's set: made, worked on, wrecked.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

/// How many ordinals the set has.
pub const ORDINALS: u32 = 3;
const DATABASE: usize = 6 << 20;
const PAGE: usize = 8 << 10;

/// The claim of one ordinal.
pub fn claim(ordinal: u32) -> String {
    format!("data-web-{ordinal}")
}

/// Fills `root` with one folder per claim, each with what a real volume has. Returns whether the filesystem takes extended attributes.
pub fn make(root: &Path) -> io::Result<bool> {
    let mut xattrs = true;
    for ordinal in 0..ORDINALS {
        let dir = root.join(claim(ordinal));
        for folder in ["db", "conf", "log/archive", "empty", "run"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        database(&dir.join("db/pages"), ordinal)?;
        fs::write(dir.join("conf/app.yaml"), format!("# settings of web-{ordinal}\nlisten: 0.0.0.0:8080\npeers: [web-0, web-1, web-2]\n"))?;
        fs::write(dir.join("conf/secret.key"), format!("not so secret, web-{ordinal}\n"))?;
        fs::set_permissions(dir.join("conf/secret.key"), Permissions::from_mode(0o600))?;
        for day in 1..=20 {
            fs::write(dir.join(format!("log/archive/2026-11-{day:02}.log")), log(ordinal, day))?;
        }
        fs::write(dir.join("log/today.log"), log(ordinal, 24))?;
        fs::hard_link(dir.join("log/today.log"), dir.join("log/current.log"))?;
        symlink("../conf/app.yaml", dir.join("db/settings"))?;
        symlink("/nowhere/to/be/found", dir.join("run/dangling"))?;
        sparse(&dir.join("db/reserved"))?;
        mknodat(CWD, dir.join("run/pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        fs::write(dir.join("run/tool"), "#!/bin/sh\necho hello\n")?;
        fs::set_permissions(dir.join("run/tool"), Permissions::from_mode(0o4755))?;
        fs::write(dir.join(OsStr::from_bytes(b"conf/caf\xe9 menu.txt")), "a name from the days before UTF-8\n")?;
        xattrs &= setxattr(dir.join("conf/app.yaml"), "user.reviewed-by", b"ops", XattrFlags::empty()).is_ok();
        fs::set_permissions(&dir, Permissions::from_mode(0o750))?;
    }
    Ok(xattrs)
}

/// A day's work: some pages of one database, a log that grows, a file that comes and one that goes.
pub fn work(root: &Path) -> io::Result<()> {
    let dir = root.join(claim(0));
    let pages = OpenOptions::new().write(true).open(dir.join("db/pages"))?;
    for page in [3, 300, 301] {
        pages.write_all_at(&noise(9000 + page, PAGE), page * PAGE as u64)?;
    }
    OpenOptions::new().append(true).open(dir.join("log/today.log"))?.write_all(log(0, 25).as_bytes())?;
    fs::write(dir.join("conf/feature.yaml"), "shiny: true\n")?;
    fs::remove_file(root.join(claim(1)).join("log/archive/2026-11-01.log"))
}

/// A bad night: one claim gone, one overwritten, one half empty.
pub fn wreck(root: &Path) -> io::Result<()> {
    let pages = OpenOptions::new().write(true).open(root.join(claim(0)).join("db/pages"))?;
    pages.write_all_at(&noise(666, DATABASE / 2), 0)?;
    fs::remove_dir_all(root.join(claim(1)))?;
    fs::remove_dir_all(root.join(claim(2)).join("log"))?;
    fs::write(root.join(claim(2)).join("README.ransom"), "your files are encrypted\n")
}

/// Replicas: pages of noise, the same in all ordinals but for a few.
fn database(path: &Path, ordinal: u32) -> io::Result<()> {
    let mut bytes = noise(1, DATABASE);
    let own = noise(100 + u64::from(ordinal), PAGE);
    bytes[DATABASE - PAGE..].copy_from_slice(&own);
    fs::write(path, bytes)
}

/// 64 MiB long with a few KiB in it.
fn sparse(path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    file.set_len(64 << 20)?;
    file.write_all_at(&noise(2, PAGE), 20 << 20)?;
    file.write_all_at(b"the end", (64 << 20) - 7)
}

fn log(ordinal: u32, day: u32) -> String {
    (0..400)
        .map(|line| format!("2026-11-{day:02}T{:02}:{:02}:07Z web-{ordinal} GET /cart/{} 200\n", line / 60, line % 60, line * 7919 % 1000))
        .collect()
}

/// The same bytes for the same seed; nothing that compresses.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
