//! The daemon of IPVS mode is killed during a sync several times; the next daemon restores the desired state.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use portcullis_machines::uml;

use crate::daemon::{end, last_sync, portcullis};
use crate::recorded_objects::output;
use crate::{namespace, node};

/// The number of Services and endpoints: a sync takes longer than the shortest lifetimes.
const SERVICES: usize = 400;
const ENDPOINTS: usize = 10;

/// The lifetimes of daemons after their first change, in milliseconds.
const LIFETIMES: [u64; 5] = [0, 1, 3, 10, 30];

/// The longest wait for a sync, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(40);

pub(crate) fn a_daemon_killed_during_a_sync_is_followed_by_one_that_completes_it() {
    uml::inside(|| namespace::inside(kill_and_start));
}

fn kill_and_start() {
    for line in
        ["link set lo up", "link add eth0 type veth peer name peer0", "addr add 192.168.10.11/24 dev eth0"]
    {
        node::run(&format!("ip {line}"));
    }
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let mut incomplete = 0;
    for (i, lifetime) in LIFETIMES.into_iter().enumerate() {
        // Other endpoints each time, so that there are additions and removals.
        fs::write(folder.path().join("cluster.yaml"), cluster(i)).expect("the folder can be written to");
        let before = servers();
        let mut daemon = portcullis(&["--mode=ipvs"], folder.path()).spawn().expect("the binary is built");
        wait_for_a_change(&before);
        std::thread::sleep(Duration::from_millis(lifetime));
        daemon.kill().expect("it runs");
        daemon.wait().expect("it is our child");
        incomplete += usize::from(compare(folder.path()).is_err());
    }
    println!("{incomplete} of {} daemons were killed before they had written everything", LIFETIMES.len());
    assert!(incomplete > 0, "no daemon was killed during its sync");
    let mut last = portcullis(&["--mode=ipvs"], folder.path()).spawn().expect("the binary is built");
    let start = Instant::now();
    while let Err(differs) = compare(folder.path()) {
        assert!(start.elapsed() < TIMEOUT, "not in sync within {TIMEOUT:?}:\n{differs}");
        std::thread::sleep(Duration::from_millis(200));
    }
    // The last killed daemon may have written everything; the new one handles signals once it has synced.
    while last_sync() == SystemTime::UNIX_EPOCH {
        assert!(start.elapsed() < TIMEOUT, "no sync within {TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(servers_without_real_servers(), 0);
    assert_eq!(end(&mut last), Some(0), "exit status after SIGTERM");
}

/// Returns the IPVS objects of this thread's network namespace.
fn servers() -> String {
    fs::read_to_string("/proc/thread-self/net/ip_vs").unwrap_or_default()
}

fn wait_for_a_change(before: &str) {
    let start = Instant::now();
    while servers() == before {
        assert!(start.elapsed() < TIMEOUT, "the daemon did not write anything");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns the output of `portcullis diff` if there are differences.
fn compare(folder: &Path) -> Result<(), String> {
    let output = portcullis(&["diff", "--mode=ipvs"], folder).stdout(Stdio::piped()).output();
    let output = output.expect("the binary is built");
    match output.status.code() {
        Some(0) => Ok(()),
        _ => Err(String::from_utf8_lossy(&output.stdout).chars().take(4000).collect()),
    }
}

fn servers_without_real_servers() -> usize {
    let dump = output(&["ipvsadm", "-Sn"]);
    let lines: Vec<&str> = dump.lines().collect();
    assert!(lines.len() > SERVICES * ENDPOINTS, "only {} lines", lines.len());
    lines.windows(2).filter(|pair| pair.iter().all(|line| line.starts_with("-A "))).count()
}

/// Returns manifests of Services and their endpoints, which depend on `round`.
pub(crate) fn cluster(round: usize) -> String {
    let mut text = String::from("{apiVersion: v1, kind: Node, metadata: {name: node-a}}\n");
    for i in 0..SERVICES {
        let (high, low) = (i / 250, i % 250);
        let endpoints = (0..ENDPOINTS).fold(String::new(), |mut all, e| {
            let last = (round + e) % 250;
            write!(all, "{{addresses: [10.{}.{low}.{last}]}}, ", 100 + high).expect("writing to memory");
            all
        });
        write!(
            text,
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: s{i}, namespace: default}}, \
             spec: {{clusterIP: 10.96.{high}.{low}, ports: [{{port: 80}}]}}}}\n\
             ---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
             metadata: {{name: s{i}, namespace: default, labels: {{kubernetes.io/service-name: s{i}}}}}, \
             ports: [{{port: 8080}}], endpoints: [{endpoints}]}}\n"
        )
        .expect("writing to memory");
    }
    text
}
