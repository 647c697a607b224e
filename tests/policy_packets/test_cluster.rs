//! The cluster in the lab from which all cases of a run start.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_lab::{ClusterObjects, DaemonSpec, EchoPort, Lab, LabOptions, PlanOptions};

use crate::case::{Case, Step};

/// Maximum time for daemons to apply a change: much longer than they need, for busy and emulated machines.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Common arguments of all daemons.
const COMMON_ARGS: [&str; 3] = [
    "--conntrack-max-per-core=0",
    "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48",
    "--iptables-min-sync-period=0s",
];

/// A lab with a daemon on each node.
pub(crate) struct TestCluster {
    pub(crate) lab: Lab,
    start: ClusterObjects,
}

/// Configuration of a test cluster.
pub(crate) struct ClusterSetup<'a> {
    /// The folder of `fixtures/` with the cluster.
    pub(crate) corpus: &'a str,
    pub(crate) mode: &'a str,
    /// Ports on which pods and nodes listen.
    pub(crate) ports: BTreeSet<EchoPort>,
    /// Additional hosts outside.
    pub(crate) outside: BTreeSet<IpAddr>,
    /// Whether daemons are started.
    pub(crate) daemons: bool,
    /// Additional arguments of the daemons.
    pub(crate) args: &'a [&'a str],
}

impl Default for ClusterSetup<'_> {
    fn default() -> Self {
        let ports = [80, 81].into_iter().flat_map(|port| [EchoPort::tcp(port), EchoPort::udp(port)]);
        ClusterSetup {
            corpus: "network-policy",
            mode: "iptables",
            ports: ports.collect(),
            outside: BTreeSet::new(),
            daemons: true,
            args: &["--network-policy"],
        }
    }
}

/// Returns all arguments of a daemon.
pub(crate) fn daemon_args(mode: &str, args: &[&str]) -> Vec<String> {
    let mode = format!("--mode={mode}");
    [mode.as_str()].iter().chain(&COMMON_ARGS).chain(args).map(|arg| (*arg).to_owned()).collect()
}

impl ClusterSetup<'_> {
    /// Starts the cluster, and waits until every daemon has synced.
    pub(crate) fn up(self) -> TestCluster {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let start = ClusterObjects::read(fixtures.join(self.corpus).join("cluster.yaml")).unwrap();
        let plan = PlanOptions {
            clients: false,
            placeholder_pods: false,
            echo_ports: self.ports.clone(),
            node_echo_ports: self.ports,
            outside: self.outside.into_iter().collect(),
            ..Default::default()
        };
        let daemon = self.daemons.then(|| DaemonSpec {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_portcullis")),
            args: daemon_args(self.mode, self.args),
            ..DaemonSpec::default()
        });
        let mut lab = Lab::up(start.clone(), LabOptions { plan, daemon }).unwrap();
        lab.wait_synced(PATIENCE).unwrap_or_else(|error| panic!("{error}"));
        TestCluster { lab, start }
    }
}

impl TestCluster {
    /// Starts the cluster of a folder with the ports and outside hosts of these cases.
    pub(crate) fn up(corpus: &str, cases: &[Case], args: &[&str]) -> Self {
        let ports = cases.iter().flat_map(Case::ports).collect();
        let named = |arg: &&&str| arg.starts_with("--mode=");
        let mode = args.iter().find(named).map_or("iptables", |arg| &arg["--mode=".len()..]);
        let args: Vec<&str> = args.iter().filter(|arg| !named(arg)).copied().collect();
        ClusterSetup {
            corpus,
            mode,
            ports,
            outside: hosts_outside(cases),
            args: &args,
            ..ClusterSetup::default()
        }
        .up()
    }

    /// Starts the cluster of `network-policy` with daemons that enforce policies.
    pub(crate) fn enforcing(args: &[&str]) -> Self {
        let args: Vec<&str> = ["--network-policy"].iter().chain(args).copied().collect();
        ClusterSetup { args: &args, ..ClusterSetup::default() }.up()
    }

    /// Applies and deletes a step's objects.
    pub(crate) fn apply_step(&mut self, step: &Step) {
        self.lab
            .update(|cluster| {
                cluster.extend(step.objects());
                for gone in step.deletions() {
                    assert!(cluster.delete(&gone), "there is no {gone}");
                }
            })
            .unwrap();
    }

    /// Resets the objects to those at the start.
    pub(crate) fn reset(&mut self) {
        let start = self.start.clone();
        self.lab.update(|cluster| *cluster = start).unwrap();
    }
}

/// Returns the addresses outside of the cluster that flows use.
fn hosts_outside(cases: &[Case]) -> BTreeSet<IpAddr> {
    let flows = cases.iter().flat_map(|case| &case.steps).flat_map(|step| &step.flows);
    let ends = flows.flat_map(|flow| [&flow.from, &flow.to]);
    ends.filter_map(|end| end.strip_prefix("external/")).map(|ip| ip.parse().unwrap()).collect()
}
