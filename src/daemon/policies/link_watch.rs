//! Notifications of changes of this machine's links, among which those of pods are.

use std::time::Duration;

use portcullis_netlink::Result;
use portcullis_netlink::route::LinkChanges;
use tokio::sync::mpsc;

/// How long changes are collected before the loop is notified: a pod's link changes several times while it is set up.
const SETTLED: Duration = Duration::from_millis(100);

/// A channel that receives a message after links changed. If the kernel does not report changes, that is logged and the
/// channel stays silent.
pub(in crate::daemon) fn watch() -> mpsc::Receiver<()> {
    let (sink, source) = mpsc::channel(1);
    let listen = move || {
        if let Err(error) = follow(&sink) {
            tracing::warn!(%error, "cannot follow links: a pod's new interface is found only when its addresses change");
        }
    };
    // The thread sleeps in the kernel for as long as the process lives.
    if let Err(error) = std::thread::Builder::new().name("links".into()).spawn(listen) {
        tracing::warn!(%error, "cannot follow links: a pod's new interface is found only when its addresses change");
    }
    source
}

fn follow(sink: &mpsc::Sender<()>) -> Result<()> {
    let mut changes = LinkChanges::open()?;
    loop {
        changes.wait()?;
        std::thread::sleep(SETTLED);
        changes.drain()?;
        // A message that was not received yet stands for this change too.
        if matches!(sink.try_send(()), Err(mpsc::error::TrySendError::Closed(()))) {
            return Ok(());
        }
    }
}
