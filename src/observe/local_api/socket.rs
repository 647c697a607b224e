//! The Unix socket of the local API: its creation, and its removal at the end.
//!
//! The socket of a daemon that has died is replaced; the socket of one that lives is not. A lock on the folder keeps two
//! starting daemons apart. Only the user of the daemon and root may connect: the socket has the mode 0600 from its first moment,
//! and a folder that is created for it has the mode 0700.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::Mode;

/// The number of connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// A listening socket. Its file is removed when it is dropped, unless another process has replaced it.
#[derive(Debug)]
pub(super) struct ApiSocket {
    path: PathBuf,
    file: FileIdentity,
}

/// The identity of a file: device, inode and the time of its creation, as file systems use the inodes of removed files again.
type FileIdentity = (u64, u64, Option<SystemTime>);

/// Why the socket could not be created.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    /// Another process listens on it, or creates it now.
    #[error("another process listens on {}", .0.display())]
    InUse(PathBuf),
    /// There is a file of another type.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// A system call failed.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// The call.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

impl ApiSocket {
    /// Creates the socket, and listens.
    pub(super) fn listen(path: &Path) -> Result<(Self, UnixListener), SocketError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| SocketError::Io { action, path, source }
        };
        let folder = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed("create the folder", folder))?;
        let lock = File::open(folder).map_err(failed("open", folder))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SocketError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed("lock", folder)(error)),
        }
        match fs::symlink_metadata(path) {
            Ok(existing) if !existing.file_type().is_socket() => {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            Ok(_) if is_live(path) => return Err(SocketError::InUse(path.to_owned())),
            Ok(_) => fs::remove_file(path).map_err(failed("remove", path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look up", path)(error)),
        }
        let listener = bind(path).map_err(failed("listen on", path))?;
        let metadata = fs::symlink_metadata(path).map_err(failed("look up", path))?;
        Ok((ApiSocket { path: path.to_owned(), file: identity(&metadata) }, listener))
    }

    /// Returns false if the file was removed or replaced, so that nothing can connect.
    pub(super) fn is_reachable(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|metadata| identity(&metadata) == self.file)
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        if self.is_reachable()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(%error, "cannot remove {}", self.path.display());
        }
    }
}

/// Binds a socket of mode 0600. The kernel takes the mode of the file from that of the socket (`unix_bind_bsd`), so there is no
/// time at which another user may connect.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    rustix::fs::fchmod(socket.as_fd(), Mode::RUSR | Mode::WUSR)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Returns true if a process listens on a socket, or if that cannot be found out. Does not wait: a process that hangs accepts no
/// connection, and its queue may be full.
fn is_live(path: &Path) -> bool {
    let connect = || {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&socket2::SockAddr::unix(path)?)
    };
    !connect().is_err_and(|error: io::Error| {
        matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
    })
}

fn identity(metadata: &fs::Metadata) -> FileIdentity {
    (metadata.dev(), metadata.ino(), metadata.created().ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("it exists").mode() & 0o777
    }

    #[test]
    fn socket_and_folder_are_private_and_the_socket_is_removed_at_the_end() {
        let root = tempfile::tempdir().expect("a folder for temporary files");
        let path = root.path().join("run/portcullis.sock");
        let (socket, _listener) = ApiSocket::listen(&path).expect("a socket");
        assert_eq!((mode(&path), mode(path.parent().expect("its folder"))), (0o600, 0o700));
        assert!(UnixStream::connect(&path).is_ok() && socket.is_reachable());
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn stale_socket_is_replaced_and_a_live_one_is_kept() {
        let root = tempfile::tempdir().expect("a folder for temporary files");
        let path = root.path().join("portcullis.sock");
        let (first, listener) = ApiSocket::listen(&path).expect("a socket");
        let second = ApiSocket::listen(&path).expect_err("the first one is live");
        assert!(matches!(second, SocketError::InUse(_)), "{second}");
        // As after SIGKILL.
        drop(listener);
        let (second, _listener) = ApiSocket::listen(&path).expect("the first one is stale");
        assert!(second.is_reachable() && !first.is_reachable());
        drop(first);
        assert!(second.is_reachable(), "the file of another socket is not removed");
    }

    #[test]
    fn process_that_accepts_no_connection_is_live() {
        let root = tempfile::tempdir().expect("a folder for temporary files");
        let path = root.path().join("portcullis.sock");
        let (_socket, _listener) = ApiSocket::listen(&path).expect("a socket");
        let queued: Vec<UnixStream> = (0..BACKLOG).filter_map(|_| UnixStream::connect(&path).ok()).collect();
        assert_eq!(queued.len(), BACKLOG as usize);
        for _ in 0..3 {
            assert!(matches!(ApiSocket::listen(&path), Err(SocketError::InUse(_))), "a full queue");
        }
    }

    #[test]
    fn other_files_are_kept() {
        let root = tempfile::tempdir().expect("a folder for temporary files");
        let path = root.path().join("notes.txt");
        fs::write(&path, "notes").expect("a file");
        let error = ApiSocket::listen(&path).expect_err("a file is there").to_string();
        assert!(error.ends_with("notes.txt exists and is not a socket"), "{error}");
        let error = ApiSocket::listen(&path.join("p.sock")).expect_err("the folder is a file").to_string();
        assert!(error.contains("cannot create the folder"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "notes");
    }
}
