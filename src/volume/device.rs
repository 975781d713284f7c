//! A volume without a file system: a block device, read and written as one run of bytes.
//!
//! A regular file will do in its place.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, SeekFrom, fstat, fsync, open, seek, stat};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};

use crate::volume::error::VolumeError;

/// An open device. Reading and writing may be done from any thread.
#[derive(Debug)]
pub struct Device {
    fd: OwnedFd,
    path: String,
    size: u64,
}

/// Whether there is no folder at `path` but a volume without a file system. False also where nothing is.
pub fn is_device(path: &Path) -> bool {
    stat(path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::Directory)
}

impl Device {
    pub fn open_to_read(path: &Path) -> Result<Device, VolumeError> {
        Device::open(path, OFlags::RDONLY)
    }

    /// Changes nothing yet.
    pub fn open_to_write(path: &Path) -> Result<Device, VolumeError> {
        Device::open(path, OFlags::RDWR)
    }

    fn open(path: &Path, flags: OFlags) -> Result<Device, VolumeError> {
        let text = path.display().to_string();
        let failed = |operation, errno| VolumeError::new(operation, text.clone(), errno);
        let fd = retry_on_intr(|| open(path, flags | OFlags::CLOEXEC, Mode::empty())).map_err(|errno| failed("open device", errno))?;
        let kind = FileType::from_raw_mode(fstat(&fd).map_err(|errno| failed("look at", errno))?.st_mode);
        if !matches!(kind, FileType::BlockDevice | FileType::RegularFile) {
            return Err(VolumeError::KindChanged { path: text, expected: "a block device" });
        }
        let size = seek(&fd, SeekFrom::End(0)).map_err(|errno| failed("ask for the size of", errno))?;
        Ok(Device { fd, path: text, size })
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills the buffer from `at`. A device that has become smaller is an error.
    pub fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<(), VolumeError> {
        let mut got = 0;
        while got < buf.len() {
            match retry_on_intr(|| pread(&self.fd, &mut buf[got..], at + got as u64)) {
                Ok(0) => return Err(self.error("read", Errno::NXIO)),
                Ok(more) => got += more,
                Err(errno) => return Err(self.error("read", errno)),
            }
        }
        Ok(())
    }

    pub fn write_at(&self, at: u64, bytes: &[u8]) -> Result<(), VolumeError> {
        let mut put = 0;
        while put < bytes.len() {
            match retry_on_intr(|| pwrite(&self.fd, &bytes[put..], at + put as u64)) {
                Ok(0) => return Err(self.error("write", Errno::NOSPC)),
                Ok(more) => put += more,
                Err(errno) => return Err(self.error("write", errno)),
            }
        }
        Ok(())
    }

    /// Waits until all that was written is on the device. An error here means that data may be lost.
    pub fn sync(&self) -> Result<(), VolumeError> {
        fsync(&self.fd).map_err(|errno| self.error("write out", errno))
    }

    fn error(&self, operation: &'static str, errno: Errno) -> VolumeError {
        VolumeError::new(operation, self.path.clone(), errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_a_size_and_is_written_in_place_and_a_folder_is_none() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("disk");
        std::fs::write(&path, [7; 10]).unwrap();
        assert!(is_device(&path) && !is_device(temp.path()) && !is_device(&temp.path().join("nothing")));
        let device = Device::open_to_write(&path).unwrap();
        device.write_at(4, &[1, 2]).unwrap();
        device.sync().unwrap();
        assert_eq!((device.size(), std::fs::read(&path).unwrap()), (10, vec![7, 7, 7, 7, 1, 2, 7, 7, 7, 7]));
        let mut buf = [0; 3];
        device.read_at(3, &mut buf).unwrap();
        assert_eq!(buf, [7, 1, 2]);
        assert!(device.read_at(8, &mut buf).is_err(), "beyond its end");
        assert!(Device::open_to_read(temp.path()).is_err());
        let error = Device::open_to_read(&temp.path().join("nothing")).unwrap_err();
        assert!(error.to_string().starts_with("cannot open device `"), "{error}");
    }
}
