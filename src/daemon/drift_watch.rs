//! Tells the loop when somebody else changes a table of ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use portcullis_netlink::nf_tables::RulesetEvents;
use portcullis_netlink::socket::Socket;
use tokio::sync::mpsc;

/// The table was changed, or may have been; by whom.
#[derive(Clone, Debug)]
pub(crate) struct Drift(pub(super) String);

/// A channel that gets a word for each transaction of others that touches a table of this name. `own` is the socket that writes
/// for us. Where the kernel cannot be listened to, it stays silent, and that is logged.
pub(super) fn watch(table: &'static str, own: &Socket) -> mpsc::Receiver<Drift> {
    spawn(table, RulesetEvents::listen(table, own), Arc::default())
}

/// The same for the rules of the nft flavour of iptables. Transactions of our own tools are reported, too: they made
/// generations that [`Mode::has_synced_since`](portcullis_modes::Mode::has_synced_since). `latest` gets the generation that the latest of
/// these transactions made, or 0 if the kernel did not report it.
pub(super) fn watch_iptables(latest: Arc<AtomicU32>) -> mpsc::Receiver<Drift> {
    spawn("KUBE-* of iptables", RulesetEvents::listen_to_iptables("KUBE-"), latest)
}

fn spawn(
    table: &'static str,
    events: portcullis_netlink::Result<RulesetEvents>,
    latest: Arc<AtomicU32>,
) -> mpsc::Receiver<Drift> {
    // More words than one say nothing new.
    let (sink, source) = mpsc::channel(1);
    let listening = events.map_err(|error| error.to_string()).and_then(|events| {
        // The thread sleeps in the kernel for as long as the process lives.
        let follow = move || follow(table, events, &latest, &sink);
        std::thread::Builder::new().name("nf_tables".into()).spawn(follow).map_err(|error| error.to_string())
    });
    if let Err(error) = listening {
        tracing::warn!(%error, table, "what others change in our table goes unnoticed");
    }
    source
}

/// The process that a thread belongs to: the kernel reports the thread that sent the change, and that thread's name.
fn process_of(thread: u32, thread_name: &str) -> String {
    if thread == 0 {
        return "an unknown process".to_owned();
    }
    let (name, process) = owner_of(thread, thread_name).unwrap_or_else(|| (thread_name.to_owned(), thread));
    format!("{name} (process {process})")
}

/// The name and the number of the process, if the thread is still there.
fn owner_of(thread: u32, thread_name: &str) -> Option<(String, u32)> {
    let read = |id: u32, file: &str| std::fs::read_to_string(format!("/proc/{id}/{file}")).ok();
    let name_of = |id: u32| read(id, "comm").map(|name| name.trim_end().to_owned());
    // In a PID namespace of its own, this process knows others by other numbers.
    name_of(thread).filter(|name| name == thread_name)?;
    let status = read(thread, "status")?;
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()?;
    Some((name_of(process)?, process))
}

fn follow(table: &str, mut events: RulesetEvents, latest: &AtomicU32, sink: &mpsc::Sender<Drift>) {
    loop {
        let mut touched_by = None;
        let read = events.wait(|batch| {
            if batch.is_relevant {
                latest.store(batch.generation, Relaxed);
                touched_by = Some(process_of(batch.pid, &batch.process_name));
            }
        });
        if let Err(error) = read {
            if !error.is_transient() {
                tracing::warn!(%error, table, "what others change in our table goes unnoticed from now on");
                return;
            }
            latest.store(0, Relaxed);
            touched_by = Some("somebody; the kernel had more news than it could keep".to_owned());
        }
        let Some(who) = touched_by else { continue };
        if matches!(sink.try_send(Drift(who)), Err(mpsc::error::TrySendError::Closed(_))) {
            return;
        }
    }
}
