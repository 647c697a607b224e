//! The end of the program on SIGTERM and SIGINT, whatever it waits for. The time limit of tools is far beyond the patience of these
//! tests, so only the signal can end them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::cluster::{rules, server, slice};
use crate::daemon::{Daemon, Node, PATIENCE, program};
use crate::fake_tools::FakeTools;
use crate::namespace;
use crate::tool_faults::is_running;

const HANGS: &str = "exec sleep 1000";

/// Sends a signal, and asserts that the program ends. Returns its exit code.
fn stop(daemon: &mut Daemon, signal: &str, case: &str) -> Option<i32> {
    let start = Instant::now();
    let pid = daemon.pid().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    let status = daemon.wait_for_exit();
    println!("{case}: ended {:?} after the signal ({status})", start.elapsed());
    status.code()
}

fn with_tools(tools: &FakeTools, arguments: &[&str]) -> Command {
    let mut command = program();
    command
        .args(["--tool-timeout=1h", "--iptables-min-sync-period=0s"])
        .args(arguments)
        .env("PATH", tools.path());
    command
}

/// Waits until a faulty tool runs.
fn wait_for_run(daemon: &mut Daemon, tools: &FakeTools, runs: usize) {
    daemon.wait_until("a faulty tool runs", || tools.runs().len() > runs);
    // It has reached its fault.
    std::thread::sleep(Duration::from_millis(200));
}

/// Waits until all faulty tools have ended.
fn wait_for_ends(tools: &FakeTools, case: &str) {
    let until = Instant::now() + PATIENCE;
    while tools.runs().iter().any(|pid| is_running(*pid)) {
        assert!(Instant::now() < until, "{case}: a tool has not ended");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn daemon_ends_while_a_sync_hangs_and_the_next_start_continues() {
    for signal in ["-TERM", "-INT"] {
        namespace::inside(|| {
            let node = Node::new();
            let tools = FakeTools::new(node.folder.path());
            let server = server("10.244.0.1");
            let url = server.url();
            let arguments = ["--mode=iptables", "--master", &url];
            let mut daemon = node.spawn(with_tools(&tools, &arguments));
            daemon.wait_until("it serves", || rules().contains("--dport 80 -j KUBE-SVC-"));
            let before = rules();
            tools.set_fault("iptables-restore", HANGS);
            server.apply(slice("10.244.0.2"));
            wait_for_run(&mut daemon, &tools, 0);
            assert_eq!(stop(&mut daemon, signal, "a sync hangs"), Some(0), "{}", daemon.log());
            let log = daemon.log();
            assert!(log.contains("iptables-restore -w 5 --noflush was interrupted"), "{log}");
            wait_for_ends(&tools, signal);
            let held = |text: &str| {
                text.lines().filter(|line| line.starts_with('-')).map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(held(&rules()), held(&before));
            tools.repair("iptables-restore");
            let mut daemon = node.spawn(with_tools(&tools, &arguments));
            daemon.wait_until("it serves", || {
                let rules = rules();
                rules.contains("10.244.0.2:8080") && !rules.contains("10.244.0.1:8080")
            });
            daemon.wait_healthy();
        });
    }
}

#[test]
fn program_ends_while_a_tool_hangs_at_its_start() {
    // The tool, its fault, and the arguments.
    let rows: [(&str, &str, &[&str]); 6] = [
        ("iptables", HANGS, &["--mode=iptables"]),
        ("iptables", "[ \"$1\" = --version ] || exec sleep 1000", &["--mode=iptables", "--once"]),
        ("iptables", "[ \"$1\" = --version ] || exec sleep 1000", &["--mode=ipvs", "--init-only"]),
        ("iptables", HANGS, &["cleanup"]),
        ("iptables", "[ \"$1\" = --version ] || exec sleep 1000", &["diff", "--mode=iptables"]),
        ("iptables", HANGS, &["migrate", "--to=iptables"]),
    ];
    for (tool, script, arguments) in rows {
        namespace::inside(|| {
            let node = Node::new();
            let tools = FakeTools::new(node.folder.path());
            tools.set_fault(tool, script);
            let manifests = node.folder.path().join("manifests");
            let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
            command.args(arguments).args(["--tool-timeout=1h", "--hostname-override=node-a", "--manifests"]);
            command.arg(&manifests).env("PATH", tools.path());
            let mut daemon = node.spawn(command);
            wait_for_run(&mut daemon, &tools, 0);
            let case = arguments.join(" ");
            let code = stop(&mut daemon, "-TERM", &case);
            let is_complete = code == Some(0);
            assert!(!is_complete || arguments == ["--mode=iptables"], "{case}: success\n{}", daemon.log());
            wait_for_ends(&tools, &case);
        });
    }
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn manifests_that_are_no_regular_files_are_reported_and_never_waited_for() {
    namespace::inside(|| {
        let node = Node::new();
        let folder = node.folder.path();
        let (fifo, mixed) = (folder.join("fifo"), folder.join("mixed"));
        make_fifo(&fifo);
        fs::create_dir(&mixed).unwrap();
        make_fifo(&mixed.join("a.yaml"));
        let node_object = "apiVersion: v1\nkind: Node\nmetadata: {name: node-a}\n";
        fs::write(mixed.join("b.yaml"), node_object).unwrap();
        let manifests = |path: &Path| format!("--manifests={}", path.display());
        // The path, and whether the rest of it can be read.
        let rows = [(fifo.as_path(), false), (Path::new("/dev/zero"), false), (mixed.as_path(), true)];
        for (path, is_readable) in rows {
            let case = path.display();
            for arguments in [vec!["render"], vec!["explain", "--from=world", "--to=a/b"], vec!["--once"]] {
                let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
                command.args(&arguments).args(["--mode=nftables", "--hostname-override=node-a"]);
                let mut run = node.spawn({
                    command.arg(manifests(path));
                    command
                });
                let status = run.wait_for_exit();
                assert!(!status.success() || is_readable, "{case} {arguments:?}");
                assert!(run.log().contains("not a regular file"), "{case} {arguments:?}: {}", run.log());
            }
            let mut command = program();
            command.args(["--mode=nftables", &manifests(path)]);
            let mut daemon = node.spawn(command);
            let log = daemon.log.clone();
            daemon.wait_until("it is reported", || {
                fs::read_to_string(&log).unwrap_or_default().contains("not a regular file")
            });
            assert_eq!(stop(&mut daemon, "-TERM", &format!("manifests {case}")), Some(0));
        }
    });
}
