//! The real daemon in front of an API server: from the server's write to the kernel's notification, memory, and repair.

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
use super::namespace::{Namespace, SETTLE};

/// The daemon's own measure of a sync of policies.
const SYNC: &str = "portcullis_network_policy_sync_duration_seconds";

/// No sync takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two changes, so that what the one leaves to be done does not slow the other down.
const PAUSE: Duration = Duration::from_millis(50);

/// What was measured of the daemon.
pub(crate) struct Measured {
    /// From the change at the server to the kernel's notification: (what, times).
    pub(crate) changes: Vec<(&'static str, Times)>,
    /// The first sync of policies as the daemon measures it.
    pub(crate) first: Duration,
    /// From the end of the table to the same table.
    pub(crate) repair: Times,
    /// The bare transaction of that table.
    pub(crate) repair_bare: Samples,
    /// Memory at its highest with and without policies, in MB.
    pub(crate) memory: (f64, f64),
}

/// Measures it with so many pods in the cluster.
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
            starts.push(kernel.follows(&server, |server| _ = server.apply(pod.clone())));
            stops.push(kernel.follows(&server, |server| _ = server.delete("pods", &name)));
        }
        changes.extend([(names[0], starts), (names[1], stops)]);
    }
    let (repair, repair_bare) = kernel.repairs(repairs);
    let memory = (daemon.memory().1, without);
    Measured { changes, first, repair, repair_bare, memory }
}

fn memory_without(pods: usize, folder: &TempDir) -> f64 {
    let namespace = Namespace::new();
    let server = cluster_state::server(pods, &namespace);
    let launch = Launch { mode: "iptables", path: None, more: &[] };
    let (daemon, _) = Daemon::start(&namespace, &server, launch, folder.path());
    thread::sleep(SETTLE);
    daemon.memory().1
}

/// The policies' table in a namespace's kernel, and who changes it.
struct Kernel {
    /// Our own, whose changes are not told.
    socket: Socket,
    told: Receiver<Instant>,
}

impl Kernel {
    fn watch(namespace: &Namespace) -> Self {
        let socket = bare::socket(namespace);
        let events = namespace.run(|| RulesetEvents::listen(TABLE, &socket));
        let mut events = events.expect("root may listen");
        let (tell, told) = channel();
        // It sleeps in the kernel until the process ends.
        thread::spawn(move || {
            loop {
                let mut touched = false;
                // A notification that found no room is one all the same.
                let lost = events.wait(|event| touched |= event.is_relevant).is_err();
                if (touched || lost) && tell.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        Kernel { socket, told }
    }

    /// How long it takes until a change at the server has changed the table.
    fn follows(&self, server: &ApiServer, change: impl FnOnce(&ApiServer)) -> Duration {
        thread::sleep(PAUSE);
        while self.told.try_recv().is_ok() {}
        let started = Instant::now();
        change(server);
        self.told.recv_timeout(PATIENCE).expect("the daemon follows") - started
    }

    fn table(&mut self) -> Option<Table> {
        let found = nf_tables::read(&mut self.socket, TableFamily::Inet, TABLE);
        found.expect("it can be read").map(|(table, _)| table)
    }

    /// Takes the table away and waits until it is there as it was; and the same by the bare transaction.
    fn repairs(&mut self, repeats: usize) -> (Times, Samples) {
        let before = self.table().expect("the daemon has made it");
        let all = Bare::between(None, &before);
        let theirs = Namespace::new();
        let mut socket = bare::socket(&theirs);
        let (mut ours, mut bare) = (Times::default(), Samples::default());
        for _ in 0..repeats {
            thread::sleep(SETTLE);
            while self.told.try_recv().is_ok() {}
            let started = Instant::now();
            nf_tables::delete_table(&mut self.socket, TableFamily::Inet, TABLE).expect("root may");
            let mut whole = self.told.recv_timeout(PATIENCE).expect("the daemon repairs it");
            while self.table().as_ref() != Some(&before) {
                whole = self.told.recv_timeout(PATIENCE).expect("the daemon repairs all of it");
            }
            ours.push(whole - started);
            bare.push(all.send(&mut socket));
            nf_tables::delete_table(&mut socket, TableFamily::Inet, TABLE).expect("root may");
        }
        (ours, bare)
    }
}
