//! A lab with the daemon under test on every node.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use portcullis_lab::{ClusterObjects, DaemonSpec, Families, Lab, LabOptions, PlanOptions, Vantage};

/// Timeout for syncs of daemons; long, for busy machines.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Testbed {
    pub(crate) lab: Lab,
    args: Vec<String>,
}

/// The result of a run: its output, and its exit status.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) text: String,
    pub(crate) errors: String,
    pub(crate) status: i32,
}

impl Testbed {
    /// Starts the cluster of `fixtures/lab/network-policy.yaml` and waits for the first sync of every daemon.
    pub(crate) fn up(mode: &str, families: Families) -> Self {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/lab/network-policy.yaml");
        let args = [
            "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48",
            "--conntrack-max-per-core=0",
            "--network-policy",
        ];
        let mut args: Vec<String> = args.map(str::to_owned).to_vec();
        args.push(format!("--mode={mode}"));
        let daemon = DaemonSpec {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_portcullis")),
            args: args.clone(),
            ..DaemonSpec::default()
        };
        let plan = PlanOptions { families, ..PlanOptions::default() };
        let options = LabOptions { plan, daemon: Some(daemon) };
        let mut lab = Lab::up(ClusterObjects::read(fixture).unwrap(), options).unwrap();
        lab.wait_synced(PATIENCE).unwrap();
        Testbed { lab, args }
    }

    /// Returns a command in the network namespace of a node, or of a pod (`namespace/name`).
    pub(crate) fn command(&self, place: &str, program: &str) -> Command {
        let vantage = match place.contains('/') {
            true => Vantage::pod(place),
            false => Vantage::node(place),
        };
        self.lab.netns(&vantage).unwrap().command(program)
    }

    /// Runs a command line in a network namespace; its words contain no spaces.
    pub(crate) fn run(&self, place: &str, line: &str) -> String {
        let mut words = line.split_whitespace();
        let Output { status, stdout, stderr } =
            self.command(place, words.next().unwrap()).args(words).output().unwrap();
        assert!(status.success(), "{place}: {line}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    /// Returns the command `explain --probe` on a node.
    pub(crate) fn explain_command(&self, node: &str, arguments: &str) -> Command {
        let mut command = self.command(node, env!("CARGO_BIN_EXE_portcullis"));
        command.arg("explain").args(arguments.split_whitespace()).arg("--probe");
        command.arg("--manifests").arg(self.lab.manifests()).args(["--hostname-override", node]);
        command.args(&self.args);
        command
    }

    /// Runs `explain --probe` on a node.
    pub(crate) fn explain(&self, node: &str, arguments: &str) -> Run {
        let Output { status, stdout, stderr } = self.explain_command(node, arguments).output().unwrap();
        Run {
            text: String::from_utf8(stdout).unwrap(),
            errors: String::from_utf8(stderr).unwrap(),
            status: status.code().unwrap(),
        }
    }
}
