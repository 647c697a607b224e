//! Notifications of changes to this node's links, which include the host ends of pods' links.

use std::time::Duration;

use portcullis_netlink::Result;
use portcullis_netlink::route::LinkMonitor;

use crate::control::{Mailbox, Notifier, Wake};
use crate::daemon::watch_thread;

/// The time for which changes are collected before a notification. A pod's link changes several times during its setup.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// Returns a mailbox that is notified after link changes. Logs a warning if the kernel does not report changes.
pub(super) fn watch(wake: &Wake) -> Mailbox<()> {
    let consequence =
        "cannot watch links; a pod's new interface is found only when the pod's addresses change";
    watch_thread::spawn("links", consequence, follow, wake)
}

fn follow(notifier: &Notifier<()>) -> Result<()> {
    let mut changes = LinkMonitor::open()?;
    loop {
        changes.wait()?;
        std::thread::sleep(SETTLE_TIME);
        changes.drain()?;
        if !notifier.notify(()) {
            return Ok(());
        }
    }
}
