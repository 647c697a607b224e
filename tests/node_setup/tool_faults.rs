//! Faults of the iptables tools while the daemon runs: the rules that serve stay, health reports the fault, and the daemon recovers
//! without help.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::api_server::ApiServer;
use crate::cluster::{rules, server, slice};
use crate::daemon::{Daemon, HEALTH, METRICS, Node, program};
use crate::fake_tools::FakeTools;
use crate::http::get;
use crate::namespace;

/// A fault of a tool.
struct Fault {
    case: &'static str,
    tool: &'static str,
    /// The shell script that the tool runs; `None` removes the tool.
    script: Option<&'static str>,
    /// Text in `/healthz` while the fault lasts.
    reported: &'static str,
}

const fn fault(
    case: &'static str,
    tool: &'static str,
    script: &'static str,
    reported: &'static str,
) -> Fault {
    Fault { case, tool, script: Some(script), reported }
}

/// The time limit of the tools in these tests, in seconds.
const TIME_LIMIT: u64 = 3;

const RESTORE: &str = "iptables-restore";

/// Faults of writing. `$real` is the real tool.
const WRITING: &[Fault] = &[
    fault("fails without a message", RESTORE, "cat > /dev/null; exit 1", "failed (exit status: 1)"),
    fault(
        "names a line in every input",
        RESTORE,
        "cat > /dev/null; echo 'iptables-restore: line 7 failed' >&2; exit 1",
        "line 7 failed",
    ),
    fault(
        "rejects an option",
        RESTORE,
        "echo \"iptables-restore: unknown option '--noflush'\" >&2; exit 2",
        "unknown option",
    ),
    fault(
        "finds no support in the kernel",
        RESTORE,
        "echo \"can't initialize iptables table \\`nat': Table does not exist\" >&2; exit 3",
        "Table does not exist",
    ),
    fault(
        "does not get the lock",
        RESTORE,
        "echo 'Another app is currently holding the xtables lock' >&2; exit 4",
        "could not get the xtables lock",
    ),
    fault("is a script without its program", RESTORE, "exit 127", "failed (exit status: 127)"),
    fault("is killed for lack of memory", RESTORE, "head -c 10 > /dev/null; kill -9 $$", "ended by signal 9"),
    fault("crashes", RESTORE, "kill -SEGV $$", "ended by signal 11"),
    fault("hangs before it reads", RESTORE, "exec sleep 1000", "did not end within"),
    fault("hangs after it has read", RESTORE, "cat > /dev/null; exec sleep 1000", "did not end within"),
    fault("hangs with a child", RESTORE, "sleep 1000 & wait", "did not end within"),
    fault(
        "ignores SIGTERM and hangs",
        RESTORE,
        "trap '' TERM INT; sleep 1000; sleep 1000",
        "did not end within",
    ),
    fault("prints errors without end", RESTORE, "yes error >&2", "did not end within"),
    fault(
        "closes its input and fails",
        RESTORE,
        "exec <&-; echo 'no space left on device' >&2; exit 1",
        "no space left on device",
    ),
    fault(
        "prints an error that is not UTF-8",
        RESTORE,
        "cat > /dev/null; printf 'b\\377d option\\n' >&2; exit 2",
        "b\u{fffd}d option",
    ),
    Fault { case: "is missing", tool: RESTORE, script: None, reported: "is iptables installed?" },
];

/// Faults of reading, after an external change.
const READING: &[Fault] = &[
    fault("fails in the middle", "iptables", "$real \"$@\" | head -n 5; exit 1", "failed (exit status: 1)"),
    fault("is killed in the middle", "iptables", "$real \"$@\" | head -n 5; kill -9 $$", "ended by signal 9"),
    fault("hangs", "iptables", "exec sleep 1000", "did not end within"),
    fault(
        "hangs in the middle",
        "iptables",
        "$real \"$@\" | head -n 5; exec sleep 1000",
        "did not end within",
    ),
    Fault { case: "is missing", tool: "iptables", script: None, reported: "is iptables installed?" },
];

/// Returns the rules of table nat of a flavour of the tools.
fn rules_of(flavour: &str) -> String {
    namespace::run(&format!("iptables{flavour}-save -t nat"))
}

/// A daemon with fake tools, the Service shop/web, and its endpoints in turn.
struct Bench {
    /// The flavour of the tools, as the end of their names.
    flavour: &'static str,
    tools: FakeTools,
    server: ApiServer,
    daemon: Daemon,
    endpoint: u8,
    _node: Node,
}

impl Bench {
    fn new() -> Self {
        Bench::with_flavour("")
    }

    fn with_flavour(flavour: &'static str) -> Self {
        let node = Node::new();
        let tools = FakeTools::with_flavour(node.folder.path(), flavour);
        let server = server("10.244.0.1");
        let mut daemon = node.spawn(command(&tools, &server));
        daemon.wait_until("it serves both families", || {
            let text = get(METRICS, "/metrics").unwrap_or_default();
            text.matches("\nkubeproxy_sync_proxy_rules_last_timestamp_seconds{").count() == 2
        });
        let bench = Bench { flavour, tools, server, daemon, endpoint: 1, _node: node };
        assert!(bench.rules().contains("10.244.0.1:8080"));
        bench
    }

    fn rules(&self) -> String {
        rules_of(self.flavour)
    }

    fn address(&self) -> String {
        format!("10.244.0.{}", self.endpoint)
    }

    /// Gives the Service another endpoint.
    fn change(&mut self) {
        self.endpoint += 1;
        self.server.apply(slice(&self.address()));
    }

    /// Waits until the Service has its present endpoint and no sync runs: an external change during a sync may be taken for one of
    /// the daemon's.
    fn wait_for_sync(&mut self) {
        let address = format!("{}:8080", self.address());
        self.daemon.wait_until("it follows", || rules().contains(&address));
        self.daemon.wait_until("no sync runs", || {
            let before = syncs();
            std::thread::sleep(Duration::from_secs(1));
            before == syncs()
        });
    }

    fn break_tool(&self, fault: &Fault) {
        match fault.script {
            Some(script) => self.tools.set_fault(fault.tool, script),
            None => self.tools.remove(fault.tool),
        }
    }

    fn wait_for_report(&mut self, fault: &Fault) {
        let what = format!("{}: health reports it", fault.case);
        self.daemon.wait_until(&what, || {
            get(HEALTH, "/healthz")
                .is_some_and(|text| text.contains(" 503 ") && text.contains(fault.reported))
        });
    }

    /// Repairs a tool, and waits until the Service is served at its present endpoint only.
    fn wait_for_recovery(&mut self, fault: &Fault) {
        let start = Instant::now();
        self.tools.repair(fault.tool);
        let (address, flavour) = (format!("{}:8080", self.address()), self.flavour);
        let what = format!("{}: it recovers", fault.case);
        self.daemon.wait_until(&what, || {
            let rules = rules_of(flavour);
            let endpoints = rules.lines().filter(|line| line.contains("--to-destination"));
            let is_served = endpoints.eq_by_address(&address);
            is_served && get(HEALTH, "/healthz").is_some_and(|text| text.contains(" 200 "))
        });
        println!("{} {}: recovered within {:?}", fault.tool, fault.case, start.elapsed());
        let metrics = get(METRICS, "/metrics").unwrap();
        assert!(
            !metrics.contains("portcullis_service_sync_errors{"),
            "{}: a Service is isolated",
            fault.case
        );
    }
}

/// Returns the numbers of syncs by family.
fn syncs() -> Vec<String> {
    let metrics = get(METRICS, "/metrics").unwrap_or_default();
    let is_count = |line: &&str| line.contains("proxy_rules_duration_seconds_count");
    metrics.lines().filter(is_count).map(str::to_owned).collect()
}

/// Compares rules with an endpoint.
trait EndpointRules {
    fn eq_by_address(self, address: &str) -> bool;
}

impl<'a, I: Iterator<Item = &'a str>> EndpointRules for I {
    fn eq_by_address(self, address: &str) -> bool {
        let rules: Vec<&str> = self.collect();
        rules.len() == 1 && rules[0].ends_with(&format!("--to-destination {address}"))
    }
}

fn command(tools: &FakeTools, server: &ApiServer) -> Command {
    let mut command = program();
    command.args(["--mode=iptables", "--master", &server.url(), "--iptables-min-sync-period=0s"]);
    command.arg(format!("--tool-timeout={TIME_LIMIT}s")).env("PATH", tools.path());
    command
}

#[test]
fn faults_of_writing_keep_the_rules_and_are_recovered_from() {
    faults_of_writing("-nft");
}

/// The legacy tool replaces a table as a whole.
#[test]
fn faults_of_writing_with_the_legacy_tool_keep_the_rules_and_are_recovered_from() {
    faults_of_writing("-legacy");
}

fn faults_of_writing(flavour: &'static str) {
    namespace::inside(|| {
        let mut bench = Bench::with_flavour(flavour);
        for fault in WRITING {
            let before = bench.rules();
            bench.break_tool(fault);
            bench.change();
            bench.wait_for_report(fault);
            assert_eq!(without_counters(&bench.rules()), without_counters(&before), "{}", fault.case);
            bench.wait_for_recovery(fault);
        }
        assert!(bench.tools.runs().iter().all(|pid| !is_running(*pid)), "all runs have ended");
        let timeouts = WRITING.iter().filter(|fault| fault.reported == "did not end within").count();
        let metrics = get(METRICS, "/metrics").unwrap();
        let counted = metrics
            .lines()
            .find(|line| line.starts_with("portcullis_tool_timeouts_total{tool=\"iptables-restore\"}"));
        let count: usize = counted.and_then(|line| line.rsplit(' ').next()).unwrap().parse().unwrap();
        assert!(count >= timeouts, "{counted:?}");
        assert!(bench.daemon.log().contains("iptables-restore -w 5 --noflush did not end within"));
    });
}

#[test]
fn faults_of_reading_keep_the_rules_and_are_recovered_from() {
    for fault in READING {
        // A daemon of its own: repeated external changes are restored with delays.
        namespace::inside(|| {
            let mut bench = Bench::new();
            bench.wait_for_sync();
            bench.break_tool(fault);
            // An external change, after which all rules are compared.
            namespace::run("/usr/sbin/iptables -t nat -F KUBE-MARK-MASQ");
            let before = without_counters(&rules());
            bench.wait_for_report(fault);
            let after = without_counters(&rules());
            let lost: Vec<&String> = before.iter().filter(|line| !after.contains(line)).collect();
            assert!(lost.is_empty(), "{}: {lost:#?}", fault.case);
            bench.change();
            bench.wait_for_recovery(fault);
            assert!(rules().contains("-A KUBE-MARK-MASQ -j MARK"), "{}", fault.case);
        });
    }
}

/// After a dump that is truncated without an error, rules may be written again, but none is missing.
#[test]
fn silently_truncated_dumps_take_no_rule_away() {
    namespace::inside(|| {
        let mut bench = Bench::new();
        for lines in ["0", "5", "20"] {
            let truncated = format!("$real \"$@\" | head -n {lines}; exit 0");
            let before = without_counters(&rules());
            bench.tools.set_fault("iptables", &truncated);
            namespace::run("/usr/sbin/iptables -t nat -F KUBE-MARK-MASQ");
            bench.daemon.wait_until("it restores", || rules().contains("-A KUBE-MARK-MASQ -j MARK"));
            bench.tools.repair("iptables");
            bench.change();
            bench.wait_for_sync();
            let after = without_counters(&rules());
            let lost: Vec<&String> =
                before.iter().filter(|line| !line.contains("KUBE-SEP-") && !after.contains(*line)).collect();
            assert!(lost.is_empty(), "{lines} lines: {lost:#?}");
        }
    });
}

/// Rules of other programs may have comments that are not UTF-8.
#[test]
fn foreign_rules_that_are_not_utf8_prevent_nothing() {
    namespace::inside(|| {
        let mut bench = Bench::new();
        let foreign = "$real \"$@\" || exit; printf -- '-A OUTPUT -m comment --comment \\377\\376 -j ACCEPT\\n'; exit 0";
        bench.tools.set_fault("iptables", foreign);
        namespace::run("/usr/sbin/iptables -t nat -F KUBE-MARK-MASQ");
        bench.daemon.wait_until("it restores", || rules().contains("-A KUBE-MARK-MASQ -j MARK"));
        bench.change();
        bench.wait_for_sync();
        bench.daemon.wait_healthy();
    });
}

/// Tools that cannot be used from the start: the daemon exits with the reason, and writes nothing.
#[test]
fn start_with_faulty_tools() {
    // The fault of `iptables`, and text of the error.
    let rows: [(&str, &str, &str); 6] = [
        ("prints no version", "[ \"$1\" = --version ] && exit 0", "printed no version"),
        (
            "prints nonsense",
            "[ \"$1\" = --version ] && { printf 'v\\377x.y (nf_tables)\\n'; exit 0; }",
            "printed no version",
        ),
        ("fails", "[ \"$1\" = --version ] && { echo 'cannot execute' >&2; exit 126; }", "cannot execute"),
        ("hangs", "exec sleep 1000", "iptables --version did not end within"),
        ("prints without end", "exec yes v1", "printed more than"),
        (
            "hangs when it lists",
            "[ \"$1\" = --version ] || exec sleep 1000",
            "-S POSTROUTING did not end within",
        ),
    ];
    for (case, script, error) in rows {
        namespace::inside(|| {
            let node = Node::new();
            let tools = FakeTools::new(node.folder.path());
            tools.set_fault("iptables", script);
            let server = server("10.244.0.1");
            let mut daemon = node.spawn(command(&tools, &server));
            let status = daemon.wait_for_exit();
            assert!(!status.success() && daemon.log().contains(error), "{case}: {}", daemon.log());
            assert!(!rules().contains("KUBE-"), "{case}: nothing is written");
        });
    }
}

/// IPVS is not loaded here, and a modprobe that hangs is killed.
#[test]
fn hanging_modprobe_ends_the_start_with_the_reason() {
    namespace::inside(|| {
        let node = Node::new();
        let tools = FakeTools::new(node.folder.path());
        tools.set_fault("modprobe", "exec sleep 1000");
        let server = server("10.244.0.1");
        let mut command = program();
        command.args(["--mode=ipvs", "--master", &server.url()]).env("PATH", tools.path());
        command.arg(format!("--tool-timeout={TIME_LIMIT}s"));
        let mut daemon = node.spawn(command);
        let status = daemon.wait_for_exit();
        let log = daemon.log();
        assert!(!status.success() && log.contains("this kernel has no IPVS"), "{log}");
        assert!(log.contains("did not end within 3.0 s and was killed"), "{log}");
        assert!(
            !tools.runs().is_empty() && tools.runs().iter().all(|pid| !is_running(*pid)),
            "all runs have ended"
        );
    });
}

fn without_counters(rules: &str) -> Vec<String> {
    let lines = rules.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(" [").next().unwrap_or(line).to_owned()).collect()
}

/// Returns true if a process exists and is not a zombie.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}
