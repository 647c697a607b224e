//! The lock of a store: `flock` on a file, which the kernel releases when its holder ends.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::error::{Error, Result};

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(super) struct StoreLock {
    _file: File,
}

/// The process that holds a lock.
#[derive(Debug, PartialEq, Eq)]
pub struct Holder {
    /// `None` if it cannot be found, e.g. in another PID namespace.
    process: Option<(u32, String)>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((id, name)) => write!(f, "{name} (process {id})"),
            None => f.write_str("another process"),
        }
    }
}

impl StoreLock {
    /// Acquires the lock.
    ///
    /// # Errors
    /// The file cannot be created, or another process holds the lock for longer than `limit`.
    pub(super) fn acquire(path: &Path, limit: Duration) -> Result<Self> {
        let until = Instant::now() + limit;
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(path)
                .map_err(Error::write(path))?;
            let inode = file.metadata().map_err(Error::io("read", path))?.ino();
            let locked = lock(file, until).map_err(Error::io("lock", path))?;
            let Some(file) = locked else {
                return Err(Error::Locked { path: path.to_owned(), waited: limit, holder: holder(inode) });
            };
            // Another process may have removed the file meanwhile, and a third one may hold the lock on a new file.
            match fs::metadata(path) {
                Ok(metadata) if metadata.ino() == inode => return Ok(Self { _file: file }),
                _ => {}
            }
        }
    }
}

/// Locks a file; `None` if the time is over.
fn lock(file: File, until: Instant) -> io::Result<Option<File>> {
    match file.try_lock() {
        Ok(()) => return Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // The kernel has no time limit for `flock`. A thread that waits costs no processor time, and the kernel wakes waiting threads in
    // their order. If it gets the lock too late, it drops the file, and with it the lock.
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("store-lock".into()).spawn(move || {
        let result = file.lock();
        // The receiver has gone if the time is over.
        let _ = sender.send(result.map(|()| file));
    })?;
    match receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(result) => result.map(Some),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => {
            Err(io::Error::other("the thread that waits for the lock ended"))
        }
    }
}

/// Returns the process that holds a lock on the file with an inode number.
fn holder(inode: u64) -> Holder {
    // A line is `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`; a process that waits has `->` after the number.
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let suffix = format!(":{inode}");
    let process = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, _, process, file, ..] if file.ends_with(&suffix) => process.parse::<u32>().ok(),
            _ => None,
        }
    });
    let process = process.filter(|&id| id != 0).map(|id| {
        let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        (id, if name.is_empty() { "unknown program".to_owned() } else { name.trim().to_owned() })
    });
    Holder { process }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_names_its_holder_when_the_time_is_over() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lock");
        let first = StoreLock::acquire(&path, Duration::from_secs(5)).expect("the lock is free");
        let error = StoreLock::acquire(&path, Duration::from_millis(20)).expect_err("the lock is held");
        let Error::Locked { holder, .. } = error else { panic!("unexpected error: {error}") };
        assert_eq!(holder.process.map(|(id, _)| id), Some(std::process::id()));
        drop(first);
        StoreLock::acquire(&path, Duration::from_secs(5)).expect("the lock is free again");
    }

    #[test]
    fn a_removed_lock_file_does_not_let_two_processes_in() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lock");
        let first = StoreLock::acquire(&path, Duration::from_secs(5)).expect("the lock is free");
        let waiting = thread::spawn({
            let path = path.clone();
            move || StoreLock::acquire(&path, Duration::from_secs(20)).expect("the lock is released")
        });
        thread::sleep(Duration::from_millis(50));
        fs::remove_file(&path).expect("the file exists");
        let second = StoreLock::acquire(&path, Duration::from_secs(5)).expect("a new file");
        // The waiting thread gets the lock of the removed file, and must not take it for the store's.
        drop(first);
        thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        drop(second);
        waiting.join().expect("it gets the lock of the new file");
    }
}
