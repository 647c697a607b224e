//! Threads that wait for notifications of the kernel, and notify the loop.

use portcullis_netlink::Result;

use crate::control::{Mailbox, Notifier, Wake};

/// Starts a thread that runs `follow` until the process ends, and returns the mailbox of its notifications. If the kernel
/// does not send notifications, `consequence` is logged and the mailbox stays empty.
pub(super) fn spawn(
    name: &str,
    consequence: &'static str,
    follow: fn(&Notifier<()>) -> Result<()>,
    wake: &Wake,
) -> Mailbox<()> {
    let (notifier, mailbox) = Mailbox::new(wake);
    let listen = move || {
        if let Err(error) = follow(&notifier) {
            tracing::warn!(%error, "{consequence}");
        }
    };
    if let Err(error) = std::thread::Builder::new().name(name.into()).spawn(listen) {
        tracing::warn!(%error, "{consequence}");
    }
    mailbox
}
