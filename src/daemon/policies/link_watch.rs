//! Notifications of changes of this machine's links, which include those of pods.

use std::time::Duration;

use portcullis_netlink::Result;
use portcullis_netlink::route::LinkMonitor;

use crate::control::{Mailbox, Notifier, Wake};
use crate::daemon::watch_thread;

/// The time for which changes are collected before the notification: a pod's link changes several times while it is set up.
const SETTLED: Duration = Duration::from_millis(100);

/// Returns a mailbox that is notified after links changed. If the kernel does not report changes, that is logged.
pub(super) fn watch(wake: &Wake) -> Mailbox<()> {
    let consequence = "cannot follow links: a pod's new interface is found only when its addresses change";
    watch_thread::spawn("links", consequence, follow, wake)
}

fn follow(notifier: &Notifier<()>) -> Result<()> {
    let mut changes = LinkMonitor::open()?;
    loop {
        changes.wait()?;
        std::thread::sleep(SETTLED);
        changes.drain()?;
        if !notifier.notify(()) {
            return Ok(());
        }
    }
}
