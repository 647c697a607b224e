//! Notifications of external changes to this process's nf_tables tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use portcullis_netlink::nf_tables::RulesetEvents;
use portcullis_netlink::socket::Socket;

use crate::control::{Mailbox, Notifier, Wake};

/// The wait after events could not be read.
const RETRY: Duration = Duration::from_secs(30);

/// An external change to the rules, with a description of the process that made it.
#[derive(Clone, Debug)]
pub(crate) struct Drift(pub(super) String);

/// Returns a mailbox that is notified of other processes' transactions on a table of this name. `own` is the socket of this
/// process's transactions. Logs a warning if the kernel does not report changes.
pub(super) fn watch(table: &'static str, own: &Socket, wake: &Wake) -> Mailbox<Drift> {
    spawn(table, RulesetEvents::listen(table, own), Arc::default(), wake)
}

/// As [`watch`], for the rules of iptables-nft. Transactions of the tools that this process runs are also reported; they are
/// distinguished by their generations, see [`Mode::has_synced_since`](portcullis_modes::Mode::has_synced_since). `latest` is set to the
/// generation of the latest transaction, or to 0 if the kernel did not report it.
pub(super) fn watch_iptables(latest: Arc<AtomicU32>, wake: &Wake) -> Mailbox<Drift> {
    spawn("KUBE-* of iptables", RulesetEvents::listen_to_iptables("KUBE-"), latest, wake)
}

fn spawn(
    table: &'static str,
    events: portcullis_netlink::Result<RulesetEvents>,
    latest: Arc<AtomicU32>,
    wake: &Wake,
) -> Mailbox<Drift> {
    let (notifier, mailbox) = Mailbox::new(wake);
    let listening = events.map_err(|error| error.to_string()).and_then(|events| {
        // The thread blocks in the kernel until the process exits.
        let follow = move || follow(table, events, &latest, &notifier);
        std::thread::Builder::new().name("nf_tables".into()).spawn(follow).map_err(|error| error.to_string())
    });
    if let Err(error) = listening {
        tracing::warn!(%error, table, "cannot subscribe to nf_tables events; drift will not be detected");
    }
    mailbox
}

/// Describes the process of a thread. The kernel reports the ID and the name of the thread that made the change.
fn describe_process(thread: u32, thread_name: &str) -> String {
    if thread == 0 {
        return "an unknown process".to_owned();
    }
    let (name, process) =
        process_of_thread(thread, thread_name).unwrap_or_else(|| (thread_name.to_owned(), thread));
    format!("{name} (process {process})")
}

/// Returns the name and ID of the process, if the thread still exists.
fn process_of_thread(thread: u32, thread_name: &str) -> Option<(String, u32)> {
    let read = |id: u32, file: &str| std::fs::read_to_string(format!("/proc/{id}/{file}")).ok();
    let name_of = |id: u32| read(id, "comm").map(|name| name.trim_end().to_owned());
    // The ID belongs to another thread if the change came from another PID namespace.
    name_of(thread).filter(|name| name == thread_name)?;
    let status = read(thread, "status")?;
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()?;
    Some((name_of(process)?, process))
}

fn follow(table: &str, mut events: RulesetEvents, latest: &AtomicU32, notifier: &Notifier<Drift>) {
    loop {
        let mut changed_by = None;
        let read = events.wait(|batch| {
            if batch.is_relevant {
                latest.store(batch.generation, Relaxed);
                changed_by = Some(describe_process(batch.pid, &batch.process_name));
            }
        });
        if let Err(error) = read {
            if !error.is_transient() {
                tracing::warn!(%error, table, "cannot read nf_tables events; reading again in {} s", RETRY.as_secs());
                std::thread::sleep(RETRY);
            }
            latest.store(0, Relaxed);
            changed_by = Some("an unknown process; notifications were lost".to_owned());
        }
        let Some(process) = changed_by else { continue };
        if !notifier.notify(Drift(process)) {
            return;
        }
    }
}
