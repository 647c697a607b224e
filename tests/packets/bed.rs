//! A cluster to probe: the lab, with the daemon under test on every node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use portcullis_lab::{Cluster, DaemonSpec, Families, Lab, LabOptions, PlanOptions, Vantage};

use crate::mode::Mode;
use crate::tools::{self, Flavour};

/// How long daemons may take to follow; much longer than they do, for machines that are busy, or emulated.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The lab's pod CIDRs.
const CLUSTER_CIDR: &str = "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48";

/// How a cluster is built.
pub(crate) struct Setup {
    fixture: &'static str,
    mode: Mode,
    families: Families,
    args: Vec<String>,
}

impl Setup {
    /// The manifests of `fixtures/lab/`, with daemons that know the cluster's CIDR and sync at once.
    pub(crate) fn of(fixture: &'static str) -> Self {
        Self::without_cluster_cidr(fixture).args(&[CLUSTER_CIDR])
    }

    /// The same, but the daemons cannot tell local traffic unless told how.
    pub(crate) fn without_cluster_cidr(fixture: &'static str) -> Self {
        let args = ["--conntrack-max-per-core=0", "-v=4"].map(str::to_owned).to_vec();
        Self { fixture, mode: Mode::Iptables(Flavour::Nft), families: Families::Dual, args }
    }

    /// More arguments for the daemons.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// iptables mode, by this flavour of the tool.
    pub(crate) fn flavour(self, flavour: Flavour) -> Self {
        self.mode(Mode::Iptables(flavour))
    }

    /// How the daemons serve.
    pub(crate) fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The families of the cluster.
    pub(crate) fn families(mut self, families: Families) -> Self {
        self.families = families;
        self
    }

    /// Builds it, and waits until every daemon serves it.
    pub(crate) fn up(self) -> Bed {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/lab").join(self.fixture);
        let tools = tempfile::tempdir().unwrap();
        let daemon = DaemonSpec {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_portcullis")),
            args: self.mode.with_args(&self.args),
            env: vec![("PATH".into(), self.mode.path(tools.path()))],
        };
        let plan = PlanOptions { families: self.families, ..Default::default() };
        let options = LabOptions { plan, daemon: Some(daemon) };
        let lab = Lab::up(Cluster::read(fixture).unwrap(), options).unwrap();
        let (mode, families, args) = (self.mode, self.families, self.args);
        let mut bed = Bed { lab, mode, families, args, tools };
        bed.synced();
        bed
    }
}

/// A cluster that is served.
pub(crate) struct Bed {
    pub(crate) lab: Lab,
    pub(crate) mode: Mode,
    pub(crate) families: Families,
    /// The daemons' arguments beside those of the mode.
    pub(crate) args: Vec<String>,
    tools: tempfile::TempDir,
}

impl Bed {
    /// Waits until the daemons have followed the last change.
    pub(crate) fn synced(&mut self) {
        if let Err(error) = self.lab.wait_synced(PATIENCE) {
            panic!("{error}");
        }
    }

    /// Changes objects, and waits until the daemons have followed.
    pub(crate) fn apply(&mut self, manifests: &str) {
        self.lab.apply_text(manifests).unwrap();
        self.synced();
    }

    /// Has a node's daemon end, and one of another mode take its place. The node's iptables are what they were.
    pub(crate) fn change_mode_of(&mut self, node: &str, mode: Mode) {
        assert_eq!(mode.flavour(), self.mode.flavour(), "a node keeps its iptables");
        self.lab.set_daemon_args(mode.with_args(&self.args));
        self.lab.stop_daemon(node).unwrap();
        self.lab.start_daemon(node).unwrap();
        self.synced();
    }

    /// Gives nodes that had none the iptables that a mode needs.
    pub(crate) fn install_iptables(&self) {
        self.mode.flavour().path(self.tools.path());
    }

    /// The program on a node, with the daemons' arguments but the mode, and beside the node's daemon.
    pub(crate) fn program(&self, node: &str, subcommand: &[&str]) -> Command {
        let netns = self.lab.netns(&Vantage::node(node)).unwrap();
        let mut command = netns.command(env!("CARGO_BIN_EXE_portcullis"));
        command.args(subcommand).arg("--manifests").arg(self.lab.manifests());
        command.args(["--hostname-override", node]).args(&self.args);
        let path = format!("{}:{}", self.tools.path().display(), std::env::var("PATH").unwrap());
        command.env("PATH", path);
        command.env("XTABLES_LOCKFILE", self.lab.folder().join(format!("{node}.xtables.lock")));
        command
    }

    /// The rules of a table on a node, as the tool's `-save` prints them. `tool` is `iptables` or `ip6tables`.
    pub(crate) fn rules(&self, node: &str, tool: &str, table: &str) -> String {
        let netns = self.lab.netns(&Vantage::node(node)).unwrap();
        tools::output(netns.command(self.mode.flavour().tool(tool, "-save")).args(["-t", table]))
    }

    /// Runs iptables on a node, as somebody else would who shares it with the daemon.
    pub(crate) fn iptables(&self, node: &str, arguments: &[&str]) {
        let netns = self.lab.netns(&Vantage::node(node)).unwrap();
        tools::output(netns.command(self.mode.flavour().tool("iptables", "")).arg("-w").args(arguments));
    }

    /// Runs iptables-restore on a node, as another process: the commands for one table take effect at once.
    pub(crate) fn iptables_restore(&self, node: &str, text: &str) {
        let netns = self.lab.netns(&Vantage::node(node)).unwrap();
        let mut command = netns.command(self.mode.flavour().tool("iptables", "-restore"));
        tools::output_of(command.args(["-w", "5", "--noflush"]), text);
    }

    /// The sum of a metric of a node's daemon, over the series whose labels contain `labels`; 0 without any.
    pub(crate) fn metric(&self, node: &str, name: &str, labels: &str) -> f64 {
        let text =
            tools::http_get(&self.lab.netns(&Vantage::node(node)).unwrap(), "127.0.0.1:10249", "/metrics");
        let text = text.unwrap_or_else(|error| panic!("{node} tells no metrics: {error}"));
        tools::sum_of(&text, name, &[labels])
    }

    /// Waits until something is so; `what` says what, for the failure.
    pub(crate) fn wait_until(&self, what: &str, patience: Duration, so: impl Fn(&Self) -> bool) {
        let until = Instant::now() + patience;
        while !so(self) {
            assert!(Instant::now() < until, "not within {patience:?}: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills a node's daemon as an out-of-memory killer would, and collects it.
    pub(crate) fn kill_daemon(&mut self, node: &str) {
        self.signal(node, libc::SIGKILL);
        self.lab.stop_daemon(node).unwrap();
    }

    /// Sends a signal to a node's daemon.
    pub(crate) fn signal(&self, node: &str, signal: i32) {
        let pid = libc::pid_t::try_from(self.lab.daemon_pid(node).unwrap()).unwrap();
        // SAFETY: the process is the lab's child and was not waited for yet, so the id is still its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Writes a file beside the lab's own manifests by an atomic rename, as editors and config maps do.
    pub(crate) fn write_manifest(&self, name: &str, text: &str) {
        let fresh = self.lab.manifests().join(format!(".{name}.new"));
        fs::write(&fresh, text).unwrap();
        fs::rename(&fresh, self.lab.manifests().join(name)).unwrap();
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.lab.plan().nodes {
                let log = self.lab.folder().join("logs").join(format!("{}.log", node.name));
                let text = fs::read_to_string(&log).unwrap_or_else(|error| error.to_string());
                let lines: Vec<&str> = text.lines().collect();
                let tail = lines[lines.len().saturating_sub(60)..].join("\n");
                eprintln!("--- the daemon of {} ---\n{tail}", node.name);
            }
        }
    }
}

impl Bed {
    /// What `nft` prints on a node; nothing if it fails, as when what is to be listed is not there.
    pub(crate) fn nft(&self, node: &str, arguments: &[&str]) -> String {
        let netns = self.lab.netns(&Vantage::node(node)).unwrap();
        let listed = netns.command("nft").args(arguments).output().unwrap();
        String::from_utf8(listed.stdout).unwrap()
    }
}
