//! A network namespace without a name, which ends with its last process and handle.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use portcullis_lab::NetNs;
use portcullis_modes::iptables::{NFACCT_INVALID_DROPPED, NFACCT_LOCALHOST_NODE_PORTS};
use portcullis_netlink::nfacct::Counters;

/// The kernel destroys namespaces in the background, which slows down the next measurement.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);

/// A namespace with its loopback interface up and the counters that rules name.
pub(crate) struct Namespace(File);

impl Namespace {
    pub(crate) fn new() -> Namespace {
        let make = || {
            // SAFETY: unshare takes no pointers, and changes only this thread, which does nothing else.
            let status = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(status, 0, "a network namespace needs root: {}", std::io::Error::last_os_error());
            let lo = Command::new("ip").args(["link", "set", "lo", "up"]).stdin(Stdio::null()).status();
            assert!(
                lo.is_ok_and(|status| status.success()),
                "`ip link set lo up` failed; is iproute2 installed?"
            );
            ensure_counters();
            File::open("/proc/thread-self/ns/net").expect("/proc is mounted")
        };
        Namespace(
            std::thread::scope(|scope| scope.spawn(make).join()).expect("the thread has printed its error"),
        )
    }

    /// Returns an existing namespace, with the counters that rules name.
    #[allow(dead_code, reason = "only one benchmark uses it")]
    pub(crate) fn of(netns: &NetNs) -> Namespace {
        let open = || {
            ensure_counters();
            File::open("/proc/thread-self/ns/net").expect("/proc is mounted")
        };
        Namespace(netns.run(open).expect("it can be entered"))
    }

    /// Runs a function in it. Threads and programs started there stay there.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            // SAFETY: setns takes a descriptor, open for the whole call, and changes only this thread.
            let status = unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(status, 0, "cannot enter the namespace: {}", std::io::Error::last_os_error());
            work()
        };
        let result = std::thread::scope(|scope| scope.spawn(inside).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// On a kernel without nfacct the rules have no counters, so nothing is missing.
fn ensure_counters() {
    if let Ok(mut counters) = Counters::open() {
        for name in [NFACCT_INVALID_DROPPED, NFACCT_LOCALHOST_NODE_PORTS] {
            drop(counters.ensure(name));
        }
    }
}
