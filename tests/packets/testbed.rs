//! A test bed: a lab with the daemon under test on every node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use portcullis_lab::{
    ClusterObjects, DaemonSpec, Families, IpvsLosses, Lab, LabOptions, PlanOptions, Vantage,
};

use crate::mode::Mode;
use crate::non_root;
use crate::tools::{self, Flavour};

/// Timeout for syncs of daemons; long, for busy or emulated machines.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The lab's pod CIDRs.
const CLUSTER_CIDR: &str = "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48";

/// Fixture, mode and arguments of a test bed.
pub(crate) struct Setup {
    fixture: &'static str,
    mode: Mode,
    families: Families,
    args: Vec<String>,
    is_root: bool,
}

impl Setup {
    /// Returns a setup with manifests of `fixtures/lab/` and `--cluster-cidr`.
    pub(crate) fn new(fixture: &'static str) -> Self {
        Self::without_cluster_cidr(fixture).args(&[CLUSTER_CIDR])
    }

    /// Returns a setup without `--cluster-cidr`: daemons cannot detect local traffic without further arguments.
    pub(crate) fn without_cluster_cidr(fixture: &'static str) -> Self {
        let args = ["--conntrack-max-per-core=0", "-v=4"].map(str::to_owned).to_vec();
        Self { fixture, mode: Mode::Iptables(Flavour::Nft), families: Families::Dual, args, is_root: true }
    }

    /// Adds arguments for the daemons.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Sets iptables mode with a variant of the tool.
    pub(crate) fn flavour(self, flavour: Flavour) -> Self {
        self.mode(Mode::Iptables(flavour))
    }

    /// Sets the mode of the daemons.
    pub(crate) fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Runs the daemons as a user other than root, with CAP_NET_ADMIN only.
    pub(crate) fn non_root(mut self) -> Self {
        self.is_root = false;
        self
    }

    /// Sets the families of the cluster.
    pub(crate) fn families(mut self, families: Families) -> Self {
        self.families = families;
        self
    }

    /// Builds the lab and waits for the first sync of every daemon.
    pub(crate) fn up(self) -> Testbed {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/lab").join(self.fixture);
        let tools = tempfile::tempdir().unwrap();
        let portcullis = env!("CARGO_BIN_EXE_portcullis");
        let mut daemon = DaemonSpec {
            binary: PathBuf::from(portcullis),
            args: self.mode.with_args(&self.args),
            env: vec![("PATH".into(), self.mode.path(tools.path()))],
            ..DaemonSpec::default()
        };
        if !self.is_root {
            daemon.binary = non_root::script_in(tools.path());
            daemon.env.push(("PORTCULLIS".into(), portcullis.into()));
        }
        let plan = PlanOptions { families: self.families, ..Default::default() };
        let options = LabOptions { plan, daemon: Some(daemon) };
        let lab = Lab::up(ClusterObjects::read(fixture).unwrap(), options).unwrap();
        let (mode, families, args) = (self.mode, self.families, self.args);
        let mut testbed = Testbed { lab, mode, families, args, ipvs_losses: Mutex::default(), tools };
        testbed.synced();
        testbed
    }
}

/// A running test bed.
pub(crate) struct Testbed {
    pub(crate) lab: Lab,
    pub(crate) mode: Mode,
    pub(crate) families: Families,
    /// The daemons' arguments, without those of the mode.
    pub(crate) args: Vec<String>,
    /// Total of the losses in IPVS mode that rows have tolerated.
    pub(crate) ipvs_losses: Mutex<IpvsLosses>,
    tools: tempfile::TempDir,
}

impl Testbed {
    /// Waits until the daemons have synced the last change.
    pub(crate) fn synced(&mut self) {
        if let Err(error) = self.lab.wait_synced(PATIENCE) {
            panic!("{error}");
        }
    }

    /// Applies objects and waits until the daemons have synced.
    pub(crate) fn apply(&mut self, manifests: &str) {
        self.lab.apply_text(manifests).unwrap();
        self.synced();
    }

    /// Replaces a node's daemon by one with another mode, which uses the same variant of iptables.
    pub(crate) fn change_mode_of(&mut self, node: &str, mode: Mode) {
        assert_eq!(mode.flavour(), self.mode.flavour(), "a node keeps its iptables");
        self.lab.set_daemon_args(mode.with_args(&self.args));
        self.lab.stop_daemon(node).unwrap();
        self.lab.start_daemon(node).unwrap();
        self.synced();
    }

    /// Installs iptables for nodes that had none.
    pub(crate) fn install_iptables(&self) {
        self.mode.flavour().path(self.tools.path());
    }

    /// Returns a command for the program on a node, with the daemons' arguments except the mode.
    pub(crate) fn program(&self, node: &str, subcommand: &[&str]) -> Command {
        let netns = self.lab.netns(&Vantage::node(node)).unwrap();
        let mut command = netns.command(env!("CARGO_BIN_EXE_portcullis"));
        command.args(subcommand).arg("--manifests").arg(self.lab.manifests());
        // The nodes share the folder of the default socket.
        command.args(["--hostname-override", node, "--socket="]).args(&self.args);
        let path = format!("{}:{}", self.tools.path().display(), std::env::var("PATH").unwrap());
        command.env("PATH", path);
        command.env("XTABLES_LOCKFILE", self.lab.folder().join(format!("{node}.xtables.lock")));
        command
    }

    /// Returns the rules of a table on a node, as the tool's `-save` prints them. `tool` is `iptables` or `ip6tables`.
    pub(crate) fn rules(&self, node: &str, tool: &str, table: &str) -> String {
        let netns = self.lab.netns(&Vantage::node(node)).unwrap();
        tools::output(netns.command(self.mode.flavour().tool(tool, "-save")).args(["-t", table]))
    }

    /// Runs iptables on a node, as another process would who shares it with the daemon.
    pub(crate) fn iptables(&self, node: &str, arguments: &[&str]) {
        let netns = self.lab.netns(&Vantage::node(node)).unwrap();
        tools::output(netns.command(self.mode.flavour().tool("iptables", "")).arg("-w").args(arguments));
    }

    /// Runs iptables-restore on a node, as another process would. The commands for one table take effect atomically.
    pub(crate) fn iptables_restore(&self, node: &str, text: &str) {
        let netns = self.lab.netns(&Vantage::node(node)).unwrap();
        let mut command = netns.command(self.mode.flavour().tool("iptables", "-restore"));
        tools::output_of(command.args(["-w", "5", "--noflush"]), text);
    }

    /// Returns the sum of a metric of a node's daemon over the series whose labels contain `labels`; 0 without any.
    pub(crate) fn metric(&self, node: &str, name: &str, labels: &str) -> f64 {
        let text =
            tools::http_get(&self.lab.netns(&Vantage::node(node)).unwrap(), "127.0.0.1:10249", "/metrics");
        let text = text.unwrap_or_else(|error| panic!("cannot read metrics of {node}: {error}"));
        tools::sum_of(&text, name, &[labels])
    }

    /// Waits until a condition holds; `what` describes it in the failure message.
    pub(crate) fn wait_until(&self, what: &str, patience: Duration, so: impl Fn(&Self) -> bool) {
        let until = Instant::now() + patience;
        while !so(self) {
            assert!(Instant::now() < until, "not within {patience:?}: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills a node's daemon by SIGKILL and waits for it.
    pub(crate) fn kill_daemon(&mut self, node: &str) {
        self.signal(node, libc::SIGKILL);
        self.lab.stop_daemon(node).unwrap();
    }

    /// Sends a signal to a node's daemon.
    pub(crate) fn signal(&self, node: &str, signal: i32) {
        let pid = libc::pid_t::try_from(self.lab.daemon_pid(node).unwrap()).unwrap();
        // SAFETY: the process is a child of the lab that was not waited for, so its id was not reused.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Writes a file next to the lab's manifests by an atomic rename, as editors and ConfigMap volumes do.
    pub(crate) fn write_manifest(&self, name: &str, text: &str) {
        let fresh = self.lab.manifests().join(format!(".{name}.new"));
        fs::write(&fresh, text).unwrap();
        fs::rename(&fresh, self.lab.manifests().join(name)).unwrap();
    }
}

impl Drop for Testbed {
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

impl Testbed {
    /// Returns the output of `nft` on a node; empty if it fails, e.g. because the object to list does not exist.
    pub(crate) fn nft(&self, node: &str, arguments: &[&str]) -> String {
        let netns = self.lab.netns(&Vantage::node(node)).unwrap();
        let listed = netns.command("nft").args(arguments).output().unwrap();
        String::from_utf8(listed.stdout).unwrap()
    }
}
