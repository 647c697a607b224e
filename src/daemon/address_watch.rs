//! Tells the loop when this machine's addresses change.

use std::time::Duration;

use portcullis_netlink::route::AddressChanges;
use tokio::sync::mpsc;

/// How long the kernel may be silent before a burst of changes counts as over.
const SETTLED: Duration = Duration::from_millis(100);

/// A channel that gets a word after addresses changed. Where the kernel cannot be listened to, it stays
/// silent, and that is logged.
pub(super) fn watch() -> mpsc::Receiver<()> {
    let (sink, source) = mpsc::channel(1);
    let listen = move || {
        let changes = match AddressChanges::open() {
            Ok(changes) => changes,
            Err(error) => {
                tracing::warn!(%error, "changes of this machine's addresses go unnoticed");
                return;
            }
        };
        for change in changes {
            if let Err(error) = change {
                tracing::warn!(%error, "a change of this machine's addresses was lost");
            }
            std::thread::sleep(SETTLED);
            // A word that still waits stands for this change too.
            if let Err(mpsc::error::TrySendError::Closed(())) = sink.try_send(()) {
                return;
            }
        }
    };
    // The thread sleeps in the kernel for as long as the process lives.
    if let Err(error) = std::thread::Builder::new().name("addresses".into()).spawn(listen) {
        tracing::warn!(%error, "changes of this machine's addresses go unnoticed");
    }
    source
}
