//! Threads that wait in the kernel for changes and notify the loop.

use portcullis_netlink::Result;
use tokio::sync::mpsc;

/// Starts a thread that runs `follow` for as long as the process lives, and returns the channel of its notifications. If
/// the kernel does not report changes, `consequence` is logged and the channel stays silent.
pub(super) fn spawn(
    name: &str,
    consequence: &'static str,
    follow: fn(&mpsc::Sender<()>) -> Result<()>,
) -> mpsc::Receiver<()> {
    let (sink, source) = mpsc::channel(1);
    let listen = move || {
        if let Err(error) = follow(&sink) {
            tracing::warn!(%error, "{consequence}");
        }
    };
    if let Err(error) = std::thread::Builder::new().name(name.into()).spawn(listen) {
        tracing::warn!(%error, "{consequence}");
    }
    source
}

/// Notifies the loop; a notification that was not received yet stands for this one too. Returns whether the loop still
/// receives.
pub(super) fn notify(sink: &mpsc::Sender<()>) -> bool {
    !matches!(sink.try_send(()), Err(mpsc::error::TrySendError::Closed(())))
}
