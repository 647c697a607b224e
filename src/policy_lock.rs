//! The lock on the NetworkPolicy table: one process per network namespace enforces policies.
//!
//! It is a listening Unix socket with an abstract name. Abstract names belong to a network namespace, as the table does, and
//! are free as soon as the process has ended. Any user may bind one, so a holder that cannot write the table is ignored: it
//! is neither root, nor of the user of this process, nor known to have CAP_NET_ADMIN.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::privileges;

const NAME: &[u8] = b"portcullis/network-policy";

/// How long to wait for a holder to end: a new daemon may start while the old one ends.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The time between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct PolicyLock {
    /// `None` if the lock was forced, or its name is taken by a process that cannot write the table.
    listener: Option<UnixListener>,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum PolicyLockError {
    /// Another process enforces policies.
    #[error("{0} already enforces NetworkPolicies in this network namespace; stop it first, or use --force")]
    Held(Holder),
    /// The socket cannot be created.
    #[error("cannot lock the NetworkPolicy table: {0}")]
    Io(#[from] io::Error),
}

/// The process that holds the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// 0 for one of another PID namespace.
    process: u32,
    name: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.process) {
            (_, 0) => f.write_str("a process of another PID namespace"),
            (Some(name), process) => write!(f, "{name} (process {process})"),
            (None, process) => write!(f, "process {process}"),
        }
    }
}

/// The result of one attempt.
enum Attempt {
    Acquired(PolicyLock),
    Held(Holder),
    /// The name is bound, and nothing listens: its holder has just ended, or is another program.
    NotListening,
}

impl PolicyLock {
    /// Acquires the lock, and waits a few seconds for a holder to end. With `force`, it continues without the lock if the
    /// holder does not end.
    ///
    /// # Errors
    /// [`PolicyLockError::Held`] if the holder does not end.
    pub(crate) fn acquire(force: bool) -> Result<Self, PolicyLockError> {
        let until = Instant::now() + if force { Duration::ZERO } else { TIMEOUT };
        loop {
            let is_last = Instant::now() >= until;
            match attempt()? {
                Attempt::Acquired(lock) => return Ok(lock),
                Attempt::Held(holder) if is_last && force => {
                    tracing::warn!(%holder, "another process enforces NetworkPolicies too; continuing (--force)");
                    return Ok(PolicyLock { listener: None });
                }
                Attempt::Held(holder) if is_last => return Err(PolicyLockError::Held(holder)),
                Attempt::NotListening if is_last => {
                    tracing::warn!(
                        "a process that does not listen holds the name of the NetworkPolicy lock; \
                        continuing without the lock"
                    );
                    return Ok(PolicyLock { listener: None });
                }
                Attempt::Held(_) | Attempt::NotListening => thread::sleep(PAUSE),
            }
        }
    }

    /// Acquires the lock if it is free.
    ///
    /// # Errors
    /// [`PolicyLockError::Held`] if it is not.
    pub(crate) fn try_acquire() -> Result<Self, PolicyLockError> {
        match attempt()? {
            Attempt::Acquired(lock) => Ok(lock),
            Attempt::Held(holder) => Err(PolicyLockError::Held(holder)),
            Attempt::NotListening => Ok(PolicyLock { listener: None }),
        }
    }

    /// Holds the lock until the process ends.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn keep(self) -> io::Result<()> {
        let Some(listener) = self.listener else { return Ok(()) };
        // Processes that look up the holder connect, and would block once the backlog is full.
        let accept = move || {
            loop {
                // It fails while too many files are open, for example.
                if listener.accept().is_err() {
                    thread::sleep(PAUSE);
                }
            }
        };
        thread::Builder::new().name("policy-lock".into()).spawn(accept).map(drop)
    }
}

fn attempt() -> io::Result<Attempt> {
    let address = SocketAddr::from_abstract_name(NAME)?;
    match UnixListener::bind_addr(&address) {
        Ok(listener) => return Ok(Attempt::Acquired(PolicyLock { listener: Some(listener) })),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        // A sandbox may forbid it; policies are enforced without the lock.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::EAFNOSUPPORT)) =>
        {
            tracing::warn!(%error, "cannot lock the NetworkPolicy table; continuing without the lock");
            return Ok(Attempt::Acquired(PolicyLock { listener: None }));
        }
        Err(error) => return Err(error),
    }
    let Ok(credentials) = UnixStream::connect_addr(&address).and_then(|stream| peer(&stream)) else {
        return Ok(Attempt::NotListening);
    };
    let process = u32::try_from(credentials.pid).unwrap_or_default();
    let is_privileged = [0, privileges::user()].contains(&credentials.uid);
    if !is_privileged && !privileges::process_has_net_admin(process) {
        tracing::warn!(
            user = credentials.uid,
            process,
            "a process without CAP_NET_ADMIN holds the name of the NetworkPolicy lock; continuing without the lock"
        );
        return Ok(Attempt::Acquired(PolicyLock { listener: None }));
    }
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).ok();
    Ok(Attempt::Held(Holder { process, name: name.map(|name| name.trim_end().to_owned()) }))
}

/// Returns the credentials of the listening process.
fn peer(stream: &UnixStream) -> io::Result<libc::ucred> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of_val(&credentials) as libc::socklen_t;
    // SAFETY: `credentials` is live, and `length` is its size.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &mut length,
        )
    };
    if result == 0 { Ok(credentials) } else { Err(io::Error::last_os_error()) }
}
