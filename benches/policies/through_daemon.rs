//! Measurements of the daemon with an API server: latency from the server's write to the kernel's notification, memory, and
//! repair.

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_netlink::nf_tables::{self, RulesetEvents, Table, TableFamily};
use portcullis_netlink::socket::Socket;
use portcullis_policy::table::TABLE;
use tempfile::TempDir;

use super::api_server::ApiServer;
use super::bare::{self, Bare};
use super::cluster_state::{self, NAMESPACES};
use super::daemon::{Daemon, Launch};
use super::figures::{Samples, Times};
use super::large;
use super::namespace::{Namespace, SETTLE};

/// The daemon's metric of the duration of policy syncs.
const SYNC: &str = "portcullis_network_policy_sync_duration_seconds";

/// Time limit for a sync on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Pause between two changes, so that one does not slow down the other.
const PAUSE: Duration = Duration::from_millis(50);

/// Measurements of the daemon.
pub(crate) struct Measured {
    /// Latency from the change at the server to the kernel's notification, by kind of change.
    pub(crate) changes: Vec<(&'static str, Times)>,
    /// Duration of the first sync of policies, as measured by the daemon.
    pub(crate) first: Duration,
    /// Time from the deletion of the table until it is restored.
    pub(crate) repair: Times,
    /// Bare transaction of that table.
    pub(crate) repair_bare: Samples,
    /// Highest resident memory with and without policies, in MB.
    pub(crate) memory: (f64, f64),
}

/// Measures the daemon in a cluster with this number of pods.
pub(crate) fn measure(pods: usize, rounds: usize, repairs: usize) -> Measured {
    let folder = TempDir::new().expect("a temporary folder");
    let without = memory_without(pods, &folder);
    let namespace = Namespace::new();
    let server = cluster_state::server(pods, &namespace);
    let launch = Launch { mode: "iptables", path: None, more: &["--network-policy"] };
    let (mut daemon, _) = Daemon::start(&namespace, &server, launch, folder.path());
    let synced = daemon.wait_until(PAUSE, |metrics| metrics.sum(SYNC, "_count") >= 1.0);
    let first = Duration::from_secs_f64(synced.sum(SYNC, "_sum"));
    let mut kernel = Kernel::watch(&namespace);
    let number = pods.next_multiple_of(NAMESPACES * 10);
    let mut changes = Vec::new();
    for (names, pod) in [
        (["pod elsewhere starts", "pod elsewhere stops"], cluster_state::pod(number, 7)),
        (["pod here starts", "pod here stops"], cluster_state::pod(number + 1, 0)),
    ] {
        let (mut starts, mut stops) = (Times::default(), Times::default());
        let meta = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
        let name = format!("{}/{}", meta("namespace"), meta("name"));
        for _ in 0..rounds {
            starts.push(kernel.change_latency(&server, |server| _ = server.apply(pod.clone())));
            stops.push(kernel.change_latency(&server, |server| _ = server.delete("pods", &name)));
        }
        changes.extend([(names[0], starts), (names[1], stops)]);
    }
    let (repair, repair_bare) = kernel.repairs(repairs);
    let memory = (daemon.memory().peak_resident, without);
    Measured { changes, first, repair, repair_bare, memory }
}

fn memory_without(pods: usize, folder: &TempDir) -> f64 {
    let namespace = Namespace::new();
    let server = cluster_state::server(pods, &namespace);
    let launch = Launch { mode: "iptables", path: None, more: &[] };
    let (daemon, _) = Daemon::start(&namespace, &server, launch, folder.path());
    thread::sleep(SETTLE);
    daemon.memory().peak_resident
}

/// Measurements of the daemon with a policy of 19,900 address blocks, to which one is added.
pub(crate) struct MeasuredBlocks {
    /// Latency from the change at the server to the kernel's notification.
    pub(crate) latency: Times,
    /// CPU time of the daemon for each change.
    pub(crate) processor: Times,
    /// Resident memory before the changes, at its peak during them, and after them, in MB.
    pub(crate) memory: [f64; 3],
}

/// Measures the daemon in a cluster with this number of pods and a policy of 19,900 address blocks.
pub(crate) fn measure_blocks(pods: usize, rounds: usize) -> MeasuredBlocks {
    let folder = TempDir::new().expect("a temporary folder");
    let namespace = Namespace::new();
    let server = cluster_state::server(pods, &namespace);
    server.apply(large::policy_with_blocks(0));
    let launch = Launch { mode: "iptables", path: None, more: &["--network-policy"] };
    let (mut daemon, _) = Daemon::start(&namespace, &server, launch, folder.path());
    daemon.wait_until(PAUSE, |metrics| metrics.sum(SYNC, "_count") >= 1.0);
    thread::sleep(SETTLE);
    daemon.reset_peak_memory();
    let before = daemon.memory().resident;
    let kernel = Kernel::watch(&namespace);
    let (mut latency, mut processor) = (Times::default(), Times::default());
    for round in 0..2 * rounds {
        let used = daemon.processor_time();
        let policy = large::policy_with_blocks((round + 1) % 2);
        latency.push(kernel.change_latency(&server, |server| _ = server.apply(policy)));
        thread::sleep(SETTLE);
        processor.push(daemon.processor_time().since(used).own);
    }
    let memory = daemon.memory();
    MeasuredBlocks { latency, processor, memory: [before, memory.peak_resident, memory.resident] }
}

/// The NetworkPolicy table in a namespace, and notifications of changes.
struct Kernel {
    /// Socket of the benchmark, whose own changes are not notified.
    socket: Socket,
    changes: Receiver<Instant>,
}

impl Kernel {
    fn watch(namespace: &Namespace) -> Self {
        let socket = bare::socket(namespace);
        let events = namespace.run(|| RulesetEvents::listen(TABLE, &socket));
        let mut events = events.expect("runs as root");
        let (sender, changes) = channel();
        // The thread sleeps in the kernel until the process ends.
        thread::spawn(move || {
            loop {
                let mut touched = false;
                // A lost notification is a change, too.
                let lost = events.wait(|event| touched |= event.is_relevant).is_err();
                if (touched || lost) && sender.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        Kernel { socket, changes }
    }

    /// Measures the time until a change at the server has changed the table.
    fn change_latency(&self, server: &ApiServer, change: impl FnOnce(&ApiServer)) -> Duration {
        thread::sleep(PAUSE);
        while self.changes.try_recv().is_ok() {}
        let started = Instant::now();
        change(server);
        self.changes.recv_timeout(TIMEOUT).expect("the daemon syncs") - started
    }

    fn table(&mut self) -> Option<Table> {
        let found = nf_tables::read(&mut self.socket, TableFamily::Inet, TABLE);
        found.expect("the table can be read").map(|(table, _)| table)
    }

    /// Deletes the table and measures until it is restored, and the same with the bare transaction.
    fn repairs(&mut self, repeats: usize) -> (Times, Samples) {
        let before = self.table().expect("the daemon has made it");
        let all = Bare::between(None, &before);
        let theirs = Namespace::new();
        let mut socket = bare::socket(&theirs);
        let (mut ours, mut bare) = (Times::default(), Samples::default());
        for _ in 0..repeats {
            thread::sleep(SETTLE);
            while self.changes.try_recv().is_ok() {}
            let started = Instant::now();
            nf_tables::delete_table(&mut self.socket, TableFamily::Inet, TABLE).expect("runs as root");
            let mut whole = self.changes.recv_timeout(TIMEOUT).expect("the daemon repairs it");
            while self.table().as_ref() != Some(&before) {
                whole = self.changes.recv_timeout(TIMEOUT).expect("the daemon repairs all of it");
            }
            ours.push(whole - started);
            bare.push(all.send(&mut socket));
            nf_tables::delete_table(&mut socket, TableFamily::Inet, TABLE).expect("runs as root");
        }
        (ours, bare)
    }
}
