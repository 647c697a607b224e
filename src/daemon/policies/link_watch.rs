//! Notifications of changes of this machine's links, among which those of pods are.

use std::time::Duration;

use portcullis_netlink::Result;
use portcullis_netlink::route::LinkMonitor;
use tokio::sync::mpsc;

use crate::daemon::watch_thread;

/// How long changes are collected before the loop is notified: a pod's link changes several times while it is set up.
const SETTLED: Duration = Duration::from_millis(100);

/// A channel that receives a message after links changed. If the kernel does not report changes, that is logged and the
/// channel stays silent.
pub(in crate::daemon) fn watch() -> mpsc::Receiver<()> {
    let consequence = "cannot follow links: a pod's new interface is found only when its addresses change";
    watch_thread::spawn("links", consequence, follow)
}

fn follow(sink: &mpsc::Sender<()>) -> Result<()> {
    let mut changes = LinkMonitor::open()?;
    loop {
        changes.wait()?;
        std::thread::sleep(SETTLED);
        changes.drain()?;
        if !watch_thread::notify(sink) {
            return Ok(());
        }
    }
}
