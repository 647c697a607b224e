//! Tells the loop when somebody else changes the policies' table.

use portcullis_netlink::nf_tables::Events;
use portcullis_netlink::socket::Socket;
use portcullis_policy::table::TABLE;
use tokio::sync::mpsc;

/// The table was changed, or may have been; by whom.
#[derive(Debug)]
pub(in crate::daemon) struct Drift(pub(in crate::daemon) String);

/// A channel that gets a word for each transaction of others that touches the table. `own` is the socket that writes
/// for us. Where the kernel cannot be listened to, it stays silent, and that is logged.
pub(super) fn watch(own: &Socket) -> mpsc::Receiver<Drift> {
    // More words than one say nothing new.
    let (sink, source) = mpsc::channel(1);
    let listening = Events::listen(TABLE, own).map_err(|error| error.to_string()).and_then(|events| {
        // The thread sleeps in the kernel for as long as the process lives.
        let follow = move || follow(events, &sink);
        std::thread::Builder::new().name("nf_tables".into()).spawn(follow).map_err(|error| error.to_string())
    });
    if let Err(error) = listening {
        tracing::warn!(%error, "what others change in the policies' table goes unnoticed");
    }
    source
}

fn follow(mut events: Events, sink: &mpsc::Sender<Drift>) {
    loop {
        let mut touched_by = None;
        let read = events.wait(|batch| {
            if batch.touched {
                touched_by = Some(match batch.process {
                    0 => "an unknown process".to_owned(),
                    process => format!("{} (process {process})", batch.name),
                });
            }
        });
        if let Err(error) = read {
            if !error.is_transient() {
                tracing::warn!(%error, "what others change in the policies' table goes unnoticed from now on");
                return;
            }
            touched_by = Some("somebody; the kernel had more news than it could keep".to_owned());
        }
        let Some(who) = touched_by else { continue };
        if matches!(sink.try_send(Drift(who)), Err(mpsc::error::TrySendError::Closed(_))) {
            return;
        }
    }
}
