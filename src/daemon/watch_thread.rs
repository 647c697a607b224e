//! Threads that wait for notifications of the kernel, and notify the loop.

use std::time::Duration;

use portcullis_netlink::Result;

use crate::control::{Mailbox, Notifier, Wake};

/// The wait before another subscription after one has failed; it doubles up to the second value.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(5)];

/// Starts a thread that runs `follow` until the process ends, and returns the mailbox of its notifications. If `follow` fails,
/// `consequence` is logged, and after a wait it runs again; changes in between are notified once.
pub(super) fn spawn(
    name: &str,
    consequence: &'static str,
    follow: fn(&Notifier<()>) -> Result<()>,
    wake: &Wake,
) -> Mailbox<()> {
    spawn_with(name, consequence, follow, (), wake)
}

/// As [`spawn`], for notifications that differ: `lost` is the one after a failure.
pub(super) fn spawn_with<T: Clone + Send + 'static>(
    name: &str,
    consequence: &'static str,
    follow: impl Fn(&Notifier<T>) -> Result<()> + Send + 'static,
    lost: T,
    wake: &Wake,
) -> Mailbox<T> {
    let (notifier, mailbox) = Mailbox::new(wake);
    let listen = move || {
        let mut wait = RETRY[0];
        while let Err(error) = follow(&notifier) {
            tracing::warn!(%error, "{consequence}; subscribing again in {} s", wait.as_secs());
            std::thread::sleep(wait);
            wait = (wait * 2).min(RETRY[1]);
            if !notifier.notify(lost.clone()) {
                return;
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name(name.into()).spawn(listen) {
        tracing::warn!(%error, "{consequence}");
    }
    mailbox
}
