//! The daemon in nftables mode.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use super::api_server::ApiServer;
use super::cluster::{CLUSTER_CIDR, NODE};
use super::namespace::Namespace;
use super::process::{self, Memory, ProcessorTime};

/// The longest start, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(300);

/// The interval of polls of the metrics, which have the exact time of a sync.
const PAUSE: Duration = Duration::from_millis(500);

const METRICS: &str = "127.0.0.1:10249";

/// The time of the last sync of Services, and the first duration of a sync of policies.
const SERVICES: &str = "kubeproxy_sync_proxy_rules_last_timestamp_seconds";
const POLICIES: &str = "portcullis_network_policy_sync_duration_seconds_count";
const POLICIES_DONE: &str = "portcullis_network_policy_last_sync_timestamp_seconds";

/// A running daemon; it ends when this is dropped.
pub(crate) struct Daemon<'a> {
    namespace: &'a Namespace,
    child: Child,
    log: PathBuf,
}

impl<'a> Daemon<'a> {
    /// Starts it and waits until everything is served and enforced. Returns how long that took.
    pub(crate) fn start(
        program: &Path,
        namespace: &'a Namespace,
        server: &ApiServer,
        with_policies: bool,
        more: &[String],
        folder: &Path,
    ) -> (Self, Duration) {
        let log = folder.join("daemon.log");
        let stderr = std::fs::File::create(&log).expect("the temporary folder can be written");
        let mut command = Command::new(program);
        command
            .args([
                "--mode=nftables",
                "--hostname-override",
                NODE,
                "--cluster-cidr",
                CLUSTER_CIDR,
                "--socket=",
            ])
            .args(["--metrics-bind-address", METRICS, "--healthz-bind-address=127.0.0.1:10256"])
            // Changes are written immediately, and no periodic comparison disturbs the measurement.
            .args(["--iptables-min-sync-period=0s", "--iptables-sync-period=1h"])
            .arg("--kubeconfig")
            .arg(server.kubeconfig(folder))
            .args(with_policies.then_some("--network-policy"))
            .args(more)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        let begun = SystemTime::now();
        let child = namespace.run(|| command.spawn()).expect("the program was built");
        let mut daemon = Daemon { namespace, child, log };
        let done = daemon.wait_for_start(with_policies);
        let begun = begun.duration_since(SystemTime::UNIX_EPOCH).expect("the clock is right").as_secs_f64();
        (daemon, Duration::from_secs_f64((done - begun).max(0.0)))
    }

    /// Waits for the first syncs, and returns when the last one ended, in seconds since 1970.
    fn wait_for_start(&mut self, with_policies: bool) -> f64 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                panic!("the daemon ended ({status}) with this log:\n{}", self.log());
            }
            if let Some(text) = self.metrics() {
                let max = |name: &str| values(&text, name).fold(0.0, f64::max);
                let has_synced = max(SERVICES) > 0.0 && (!with_policies || max(POLICIES) > 0.0);
                if has_synced {
                    return max(SERVICES).max(max(POLICIES_DONE));
                }
            }
            assert!(start.elapsed() < PATIENCE, "the daemon did not start:\n{}", self.log());
            sleep(PAUSE);
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn processor_time(&self) -> Duration {
        ProcessorTime::of(self.child.id()).own
    }

    pub(crate) fn memory(&self) -> Memory {
        process::memory(self.child.id())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads the metrics; `None` while the daemon does not respond yet.
    fn metrics(&self) -> Option<String> {
        self.namespace.run(|| {
            let mut stream = TcpStream::connect(METRICS).ok()?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
            let mut response = String::new();
            stream.read_to_string(&mut response).ok()?;
            Some(response)
        })
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // It may have ended already; then it only needs to be reaped.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn values<'a>(metrics: &'a str, name: &'a str) -> impl Iterator<Item = f64> + 'a {
    let lines = metrics.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with([' ', '{']).then(|| rest.rsplit_once(' ')).flatten()
    });
    lines.map(|(_, value)| value.parse().expect("metrics are numbers"))
}
