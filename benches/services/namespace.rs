//! A network namespace without a name: it is gone once nothing is in it and nobody holds it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use portcullis_lab::NetNs;
use portcullis_modes::iptables::{NFACCT_INVALID_DROPPED, NFACCT_LOCALHOST_NODE_PORTS};
use portcullis_netlink::nfacct::Counters;

/// The kernel takes namespaces apart after their end, at the cost of who runs next.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);

/// A namespace of our own, with its loopback up and the counters that rules refer to.
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
        Namespace(std::thread::scope(|scope| scope.spawn(make).join()).expect("said above what failed"))
    }

    /// One that somebody else made, with the counters that rules refer to.
    #[allow(dead_code, reason = "policies are not measured in others' namespaces")]
    pub(crate) fn of(netns: &NetNs) -> Namespace {
        let open = || {
            ensure_counters();
            File::open("/proc/thread-self/ns/net").expect("/proc is mounted")
        };
        Namespace(netns.run(open).expect("it can be entered"))
    }

    /// Does something in it. Threads and programs that are started there stay there.
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

/// A kernel without nfacct has rules without it, so nothing is missing then.
fn ensure_counters() {
    if let Ok(mut counters) = Counters::open() {
        for name in [NFACCT_INVALID_DROPPED, NFACCT_LOCALHOST_NODE_PORTS] {
            drop(counters.ensure(name));
        }
    }
}
