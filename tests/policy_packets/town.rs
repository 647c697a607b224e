//! The cluster that all cases of a run start from, up once.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_lab::{Cluster, DaemonSpec, EchoPort, Lab, LabOptions, PlanOptions};

use crate::case::{Case, Step};

/// How long daemons may take to follow; much longer than they do, for machines that are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A lab with a daemon a node.
pub(crate) struct Town {
    pub(crate) lab: Lab,
    start: Cluster,
}

impl Town {
    /// Brings up the cluster of a corpus of `fixtures/`, ready for the ports and hosts outside that these cases speak of. `args` are
    /// the daemons' besides those for Services, which they serve by iptables unless told otherwise.
    pub(crate) fn up(corpus: &str, cases: &[Case], args: &[&str]) -> Self {
        let mode =
            if args.iter().any(|arg| arg.starts_with("--mode=")) { None } else { Some("--mode=iptables") };
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(corpus).join("cluster.yaml");
        let start = Cluster::read(file).unwrap();
        let ports: BTreeSet<EchoPort> = cases.iter().flat_map(Case::ports).collect();
        let plan = PlanOptions {
            clients: false,
            stand_ins: false,
            echo_ports: ports.clone(),
            node_echo_ports: ports,
            outside: hosts_outside(cases).into_iter().collect(),
            ..Default::default()
        };
        let fixed = [
            "--conntrack-max-per-core=0",
            "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48",
            "--iptables-min-sync-period=0s",
        ];
        let daemon = DaemonSpec {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_portcullis")),
            args: mode.iter().chain(&fixed).chain(args).map(|arg| (*arg).to_owned()).collect(),
            ..DaemonSpec::default()
        };
        let mut lab = Lab::up(start.clone(), LabOptions { plan, daemon: Some(daemon) }).unwrap();
        lab.wait_synced(PATIENCE).unwrap_or_else(|error| panic!("{error}"));
        Self { lab, start }
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
