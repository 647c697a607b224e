//! The daemon in a namespace, connected to an API server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::api_server::ApiServer;
use super::cluster_state::{CLUSTER_CIDR, NODE};
use super::namespace::Namespace;
use super::process::{self, Memory, ProcessorTime};

/// The longest possible sync, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(600);

/// The interval of polls of the metrics. A poll costs the daemon CPU time; the metrics have the exact end of a sync.
const PAUSE: Duration = Duration::from_millis(100);

/// The interval during a first sync, which is longer.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The address of the daemon's metrics in its namespace.
const METRICS: &str = "127.0.0.1:10249";

/// For modes that have it.
const FULL: &str = "kubeproxy_sync_full_proxy_rules_duration_seconds";
const SYNC: &str = "kubeproxy_sync_proxy_rules_duration_seconds";
const LAST_DONE: &str = "kubeproxy_sync_proxy_rules_last_timestamp_seconds";
const LAST_QUEUED: &str = "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds";

/// Durations.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Took {
    /// From the cause (the start, or the change in the API server) to the written rules.
    pub(crate) all: Duration,
    /// From the time when the desired state is known. Only for a first sync.
    pub(crate) listed: Option<Duration>,
    /// The sync as the daemon measures it, sum of both families.
    pub(crate) sync: Duration,
    /// CPU time meanwhile.
    pub(crate) processor: ProcessorTime,
}

/// How to run a daemon.
#[derive(Clone, Copy)]
pub(crate) struct Launch<'a> {
    pub(crate) mode: &'static str,
    /// The only folder in which it finds tools; `None` for this process's PATH.
    pub(crate) path: Option<&'a Path>,
    /// Additional arguments.
    pub(crate) more: &'a [&'a str],
}

/// A running daemon; it ends when this is dropped.
pub(crate) struct Daemon<'a> {
    namespace: &'a Namespace,
    child: Child,
    log: PathBuf,
    pub(crate) server: &'a ApiServer,
}

impl<'a> Daemon<'a> {
    /// Starts it in a namespace and waits for its first sync.
    pub(crate) fn start(
        namespace: &'a Namespace,
        server: &'a ApiServer,
        launch: Launch<'_>,
        folder: &Path,
    ) -> (Daemon<'a>, Took) {
        let log = folder.join("daemon.log");
        let stderr = std::fs::File::create(&log).expect("the temporary folder can be written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command
            .args(["--mode", launch.mode, "--hostname-override", NODE, "--cluster-cidr", CLUSTER_CIDR])
            .args([
                "--metrics-bind-address",
                METRICS,
                "--healthz-bind-address",
                "127.0.0.1:10256",
                "--socket=",
            ])
            // Changes are written immediately, and no periodic comparison disturbs the measurement.
            .args(["--iptables-min-sync-period=0s", "--ipvs-min-sync-period=0s"])
            // nftables mode uses the flags of iptables mode, as in kube-proxy.
            .args(["--iptables-sync-period=1h", "--ipvs-sync-period=1h"])
            .arg("--kubeconfig")
            .arg(server.kubeconfig(folder, "bench"))
            .args(launch.more)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        if let Some(path) = launch.path {
            command.env("PATH", path);
        }
        let begun = SystemTime::now();
        let child = namespace.run(|| command.spawn()).expect("the program was built");
        let mut daemon = Daemon { namespace, child, log, server };
        let metrics = daemon.wait_until(FIRST_PAUSE, |m| m.sum(SYNC, "_count") >= m.families());
        let done = metrics.max(LAST_DONE);
        let took = Took {
            all: after(begun, done),
            listed: Some(Duration::from_secs_f64((done - metrics.max(LAST_QUEUED)).max(0.0))),
            sync: Duration::from_secs_f64(metrics.sum(SYNC, "_sum")),
            processor: ProcessorTime::of(daemon.child.id()),
        };
        (daemon, took)
    }

    /// Changes an object in the API server and waits until it is written.
    pub(crate) fn follow(&mut self, change: impl FnOnce(&ApiServer)) -> Took {
        let before = self.metrics().expect("it answered before");
        let used = ProcessorTime::of(self.child.id());
        let begun = SystemTime::now();
        change(self.server);
        let syncs = before.sum(SYNC, "_count");
        let families = before.families();
        let after_it = self.wait_until(PAUSE, |m| m.sum(SYNC, "_count") >= syncs + families);
        assert_eq!(before.sum(FULL, "_count"), after_it.sum(FULL, "_count"), "a change is no full sync");
        Took {
            all: after(begun, after_it.max(LAST_DONE)),
            listed: None,
            sync: Duration::from_secs_f64(after_it.sum(SYNC, "_sum") - before.sum(SYNC, "_sum")),
            processor: ProcessorTime::of(self.child.id()).since(used),
        }
    }

    /// Applies an object that changes no rules, and waits until the daemon has received it.
    pub(crate) fn prepare(&mut self, object: Value) {
        self.server.apply(object);
        sleep(Duration::from_millis(500));
    }

    /// Returns the CPU time used so far.
    pub(crate) fn processor_time(&self) -> ProcessorTime {
        ProcessorTime::of(self.child.id())
    }

    /// Returns the memory of the daemon.
    pub(crate) fn memory(&self) -> Memory {
        process::memory(self.child.id())
    }

    /// Makes the peak of its resident memory start at the present value.
    #[allow(dead_code, reason = "only the policies benchmark measures peaks")]
    pub(crate) fn reset_peak_memory(&self) {
        let path = format!("/proc/{}/clear_refs", self.child.id());
        std::fs::write(&path, "5").unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Waits until its metrics meet a condition.
    pub(crate) fn wait_until(
        &mut self,
        pause: Duration,
        mut reached: impl FnMut(&Metrics) -> bool,
    ) -> Metrics {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                panic!("the daemon ended ({status}) with this log:\n{log}");
            }
            if let Some(metrics) = self.metrics().filter(|metrics| reached(metrics)) {
                return metrics;
            }
            assert!(start.elapsed() < PATIENCE, "the daemon did not sync within {PATIENCE:?}");
            sleep(pause);
        }
    }

    /// Reads its metrics; `None` while it does not respond yet.
    fn metrics(&self) -> Option<Metrics> {
        self.namespace.run(|| {
            let mut stream = TcpStream::connect(METRICS).ok()?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            answer.split_once("\r\n\r\n").map(|(_, body)| Metrics(body.to_owned()))
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

fn after(begun: SystemTime, done: f64) -> Duration {
    let begun = begun.duration_since(SystemTime::UNIX_EPOCH).expect("the clock is right").as_secs_f64();
    Duration::from_secs_f64((done - begun).max(0.0))
}

/// A response of `/metrics`.
pub(crate) struct Metrics(String);

impl Metrics {
    /// Returns the values of a metric, one per family.
    fn values<'m>(&'m self, name: &'m str, suffix: &'m str) -> impl Iterator<Item = f64> + 'm {
        let lines = self.0.lines().filter_map(move |line| {
            line.strip_prefix(name)?.strip_prefix(suffix)?.strip_prefix('{')?.rsplit_once(' ')
        });
        lines.map(|(_, value)| value.parse().expect("metrics are numbers"))
    }

    /// Returns the sum of the values of a metric.
    pub(crate) fn sum(&self, name: &str, suffix: &str) -> f64 {
        self.values(name, suffix).sum()
    }

    fn max(&self, name: &str) -> f64 {
        self.values(name, "").fold(0.0, f64::max)
    }

    /// Returns the number of served families.
    fn families(&self) -> f64 {
        (self.values(LAST_QUEUED, "").count() as f64).max(1.0)
    }
}
