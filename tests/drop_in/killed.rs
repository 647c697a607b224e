//! The daemon of IPVS mode is killed in the middle of its work, again and again; the next one finds its way.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use portcullis_lab::uml;

use crate::daemon::{end, portcullis};
use crate::held::output;
use crate::{namespace, node};

/// Services, each with so many endpoints: enough that a sync takes longer than the first deaths wait.
const SERVICES: usize = 400;
const ENDPOINTS: usize = 10;

/// How long daemons live from the first change that they make, in milliseconds.
const LIVES: [u64; 5] = [0, 1, 3, 10, 30];

/// For a sync and for what comes after it, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(40);

#[test]
fn killed_in_the_middle_of_a_sync_and_started_again() {
    uml::inside(|| namespace::inside(kill_and_start));
}

fn kill_and_start() {
    for line in
        ["link set lo up", "link add eth0 type veth peer name peer0", "addr add 192.168.10.11/24 dev eth0"]
    {
        node::run(&format!("ip {line}"));
    }
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let mut halves = 0;
    for (i, life) in LIVES.into_iter().enumerate() {
        // Each time other endpoints, so that there is something to write, and to take away.
        fs::write(folder.path().join("cluster.yaml"), cluster(i)).expect("the folder can be written to");
        let before = servers();
        let mut daemon = portcullis(&["--mode=ipvs"], folder.path()).spawn().expect("the binary is built");
        wait_for_a_change(&before);
        std::thread::sleep(Duration::from_millis(life));
        daemon.kill().expect("it runs");
        daemon.wait().expect("it is our child");
        halves += usize::from(compare(folder.path()).is_err());
    }
    println!("{halves} of {} daemons died before all was written", LIVES.len());
    assert!(halves > 0, "none died in the middle of its work");
    let mut last = portcullis(&["--mode=ipvs"], folder.path()).spawn().expect("the binary is built");
    let start = Instant::now();
    while let Err(differs) = compare(folder.path()) {
        assert!(start.elapsed() < PATIENCE, "not put right within {PATIENCE:?}:\n{differs}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(servers_with_nothing_behind(), 0);
    assert_eq!(end(&mut last), Some(0), "SIGTERM is no failure");
}

/// What the kernel has of IPVS in the namespace of this thread.
fn servers() -> String {
    fs::read_to_string("/proc/thread-self/net/ip_vs").unwrap_or_default()
}

fn wait_for_a_change(before: &str) {
    let start = Instant::now();
    while servers() == before {
        assert!(start.elapsed() < PATIENCE, "the daemon writes nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What `portcullis diff` has to say, if anything.
fn compare(folder: &Path) -> Result<(), String> {
    let output = portcullis(&["diff", "--mode=ipvs"], folder).stdout(Stdio::piped()).output();
    let output = output.expect("the binary is built");
    match output.status.code() {
        Some(0) => Ok(()),
        _ => Err(String::from_utf8_lossy(&output.stdout).chars().take(4000).collect()),
    }
}

fn servers_with_nothing_behind() -> usize {
    let dump = output(&["ipvsadm", "-Sn"]);
    let lines: Vec<&str> = dump.lines().collect();
    assert!(lines.len() > SERVICES * ENDPOINTS, "only {} lines", lines.len());
    lines.windows(2).filter(|pair| pair.iter().all(|line| line.starts_with("-A "))).count()
}

/// Services and their endpoints; which endpoints depends on `round`.
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
