//! The cluster that all cases of a run start from, up once.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_lab::{Cluster, DaemonSpec, EchoPort, Lab, LabOptions, PlanOptions};

use crate::case::{Case, Step};

/// How long daemons may take to follow; much longer than they do, for machines that are busy, or emulated.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What daemons are started with besides the mode and what policies take.
const FIXED: [&str; 3] = [
    "--conntrack-max-per-core=0",
    "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48",
    "--iptables-min-sync-period=0s",
];

/// A lab with a daemon a node.
pub(crate) struct Town {
    pub(crate) lab: Lab,
    start: Cluster,
}

/// How a town is built.
pub(crate) struct Site<'a> {
    /// The folder of `fixtures/` that has its cluster.
    pub(crate) corpus: &'a str,
    pub(crate) mode: &'a str,
    /// What pods and nodes listen on.
    pub(crate) ports: BTreeSet<EchoPort>,
    /// More hosts outside.
    pub(crate) outside: BTreeSet<IpAddr>,
    /// Whether there are daemons, or only pods and nodes.
    pub(crate) daemons: bool,
    /// The daemons' arguments besides those for Services.
    pub(crate) args: &'a [&'a str],
}

impl Default for Site<'_> {
    fn default() -> Self {
        let ports = [80, 81].into_iter().flat_map(|port| [EchoPort::tcp(port), EchoPort::udp(port)]);
        Site {
            corpus: "network-policy",
            mode: "iptables",
            ports: ports.collect(),
            outside: BTreeSet::new(),
            daemons: true,
            args: &["--network-policy"],
        }
    }
}

/// All arguments of a daemon.
pub(crate) fn daemon_args(mode: &str, args: &[&str]) -> Vec<String> {
    let mode = format!("--mode={mode}");
    [mode.as_str()].iter().chain(&FIXED).chain(args).map(|arg| (*arg).to_owned()).collect()
}

impl Site<'_> {
    /// Builds it, and waits until every daemon serves it.
    pub(crate) fn up(self) -> Town {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let start = Cluster::read(fixtures.join(self.corpus).join("cluster.yaml")).unwrap();
        let plan = PlanOptions {
            clients: false,
            stand_ins: false,
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
        Town { lab, start }
    }
}

impl Town {
    /// Brings up the cluster of a corpus, ready for the ports and hosts outside that these cases speak of.
    pub(crate) fn up(corpus: &str, cases: &[Case], args: &[&str]) -> Self {
        let ports = cases.iter().flat_map(Case::ports).collect();
        let named = |arg: &&&str| arg.starts_with("--mode=");
        let mode = args.iter().find(named).map_or("iptables", |arg| &arg["--mode=".len()..]);
        let args: Vec<&str> = args.iter().filter(|arg| !named(arg)).copied().collect();
        Site { corpus, mode, ports, outside: hosts_outside(cases), args: &args, ..Site::default() }.up()
    }

    /// The first corpus's cluster, with daemons that enforce its policies.
    pub(crate) fn enforcing(args: &[&str]) -> Self {
        let args: Vec<&str> = ["--network-policy"].iter().chain(args).copied().collect();
        Site { args: &args, ..Site::default() }.up()
    }

    /// Makes and deletes a step's objects.
    pub(crate) fn take(&mut self, step: &Step) {
        self.lab
            .update(|cluster| {
                cluster.extend(step.objects());
                for gone in step.gone() {
                    assert!(cluster.delete(&gone), "there is no {gone}");
                }
            })
            .unwrap();
    }

    /// Makes the objects what they were at first.
    pub(crate) fn start_again(&mut self) {
        let start = self.start.clone();
        self.lab.update(|cluster| *cluster = start).unwrap();
    }
}

/// The addresses outside of the cluster that flows come from or go to.
fn hosts_outside(cases: &[Case]) -> BTreeSet<IpAddr> {
    let flows = cases.iter().flat_map(|case| &case.steps).flat_map(|step| &step.flows);
    let ends = flows.flat_map(|flow| [&flow.from, &flow.to]);
    ends.filter_map(|end| end.strip_prefix("external/")).map(|ip| ip.parse().unwrap()).collect()
}
