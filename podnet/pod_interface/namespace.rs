//! Network namespaces of pods.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The network namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// The type of the file system of namespaces, `NSFS_MAGIC` of linux/magic.h.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// An open network namespace. It exists at least as long as this value.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    path: PathBuf,
}

impl Namespace {
    /// Opens the network namespace that is mounted at a path, or that a `/proc/PID/ns/net` names.
    ///
    /// # Errors
    /// The file cannot be opened, or is not a namespace: a network namespace that was deleted leaves an empty file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if rustix::fs::fstatfs(&file)?.f_type as u64 != NSFS_MAGIC {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no network namespace is mounted there"));
        }
        Ok(Namespace { file, path: path.to_owned() })
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns true if the calling thread is in this namespace.
    ///
    /// # Errors
    /// A namespace cannot be examined.
    pub fn is_own(&self) -> io::Result<bool> {
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        Ok(identity(self.file.metadata()?) == identity(std::fs::metadata(OWN)?))
    }

    /// Runs `task` in this namespace: sockets that it opens belong to the namespace, and `/proc/sys/net` shows its settings. The
    /// calling thread then returns to its own namespace.
    ///
    /// # Errors
    /// The thread may not enter the namespace.
    ///
    /// # Panics
    /// If the thread cannot return to its own namespace, in which all that follows must happen.
    pub fn run<T>(&self, task: impl FnOnce() -> T) -> io::Result<T> {
        let own = File::open(OWN)?;
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
        let _return = Return(own);
        Ok(task())
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Returns the thread to its own namespace when it is dropped, also if the task panics.
struct Return(File);

impl Drop for Return {
    fn drop(&mut self) {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("a thread may return to the namespace that it has left");
    }
}
