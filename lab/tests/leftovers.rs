//! What is left of a lab when its process ends, in whatever way; and the commands on a lab that is kept.
//!
//! The test starts itself again in other roles: as a process that owns a lab, as its daemons, as a keeper. So it brings
//! its own `main`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod machine;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portcullis_lab::{
    Cluster, DaemonSpec, Lab, LabOptions, LabState, ObjectRef, RunOptions, Vantage, keeper, run,
};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/demo");
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    if has("role=daemon") {
        daemon(&arguments);
    } else if has("role=owner") {
        owner();
    } else if has("role=runner") {
        let options = RunOptions { lab: options("role=daemon"), probes: 2, ..Default::default() };
        let report = run(DEMO, &RunOptions { timeout: Duration::from_millis(200), ..options }).unwrap();
        println!("{report}");
    } else if has("role=keeper") {
        return if keeper::keep().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    } else if has("--list") {
        // nextest asks for all tests, then for the ignored ones, which it skips: there are none.
        let listed = if has("--ignored") { &[] } else { TESTS };
        listed.iter().for_each(|(name, _)| println!("{name}: test"));
    } else {
        return run_tests(&arguments);
    }
    ExitCode::SUCCESS
}

type Test = (&'static str, fn());
const TESTS: &[Test] = &[
    ("a_lab_that_is_dropped_leaves_nothing", a_lab_that_is_dropped_leaves_nothing),
    ("an_owner_that_ends_leaves_nothing", an_owner_that_ends_leaves_nothing),
    ("a_run_that_is_interrupted_leaves_nothing", a_run_that_is_interrupted_leaves_nothing),
    ("daemons_are_waited_for", daemons_are_waited_for),
    ("a_daemon_that_fails_is_shown_with_its_log", a_daemon_that_fails_is_shown_with_its_log),
    ("a_kept_lab_obeys", a_kept_lab_obeys),
];

fn run_tests(arguments: &[String]) -> ExitCode {
    let filters: Vec<&String> =
        arguments.iter().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut failed = 0;
    for (name, test) in TESTS {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            println!("test {name} ... filtered out");
            continue;
        }
        let started = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        failed += usize::from(!passed);
        println!("test {name} ... {} in {:?}", if passed { "ok" } else { "FAILED" }, started.elapsed());
    }
    println!("{failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn this_test() -> PathBuf {
    std::env::current_exe().unwrap()
}

fn options(role: &str) -> LabOptions {
    let daemon = DaemonSpec { binary: this_test(), args: vec![role.into()], env: Vec::new() };
    LabOptions { daemon: Some(daemon), ..Default::default() }
}

/// Serves metrics as a daemon would that follows its manifests 100 ms late; with `role=daemon broken` it dies at once.
fn daemon(arguments: &[String]) {
    if arguments.iter().any(|argument| argument == "broken") {
        eprintln!("no such mode: broken");
        std::process::exit(3);
    }
    let after = |name: &str| arguments.iter().skip_while(|argument| *argument != name).nth(1).unwrap();
    let manifest = Path::new(after("--manifests")).join("cluster.json");
    println!("daemon of {} starts", after("--hostname-override"));
    let listener = TcpListener::bind("127.0.0.1:10249").unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        // The request is short, and comes in one piece.
        let _ = stream.read(&mut [0; 512]).unwrap();
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let queued = seconds(fs::metadata(&manifest).unwrap().modified().unwrap()) + 0.01;
        let synced = if seconds(SystemTime::now()) > queued + 0.1 { queued + 0.1 } else { queued - 1.0 };
        let mut body = String::new();
        for family in ["IPv4", "IPv6"] {
            body += &format!(
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{{ip_family=\"{family}\"}} {queued}\n"
            );
            body += &format!(
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds{{ip_family=\"{family}\"}} {synced}\n"
            );
        }
        // A client that is gone asks again.
        let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{body}");
    }
}

/// Builds a lab, says what it is, and holds it.
fn owner() {
    let mut lab = Lab::up(Cluster::read(DEMO).unwrap(), options("role=daemon")).unwrap();
    lab.wait_synced(PATIENCE).unwrap();
    println!("{}", serde_json::to_string(lab.state()).unwrap());
    thread::sleep(Duration::from_secs(600));
}

/// Every process of a lab: those that run in its namespaces.
fn processes(lab: &LabState) -> Vec<u32> {
    let mut found = Vec::new();
    for namespace in machine::namespaces(&lab.prefix) {
        let output = Command::new("ip").args(["netns", "pids", &namespace]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        found.extend(text.lines().filter_map(|line| line.trim().parse::<u32>().ok()));
    }
    found
}

/// Whether a process runs; one that has ended and waits for its parent does not.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

fn assert_gone(prefix: &str, folder: &Path, processes: &[u32]) {
    let until = Instant::now() + PATIENCE;
    loop {
        let namespaces = machine::namespaces(prefix);
        let alive: Vec<&u32> = processes.iter().filter(|pid| machine::is_alive(**pid)).collect();
        if namespaces.is_empty() && alive.is_empty() && !folder.exists() {
            return;
        }
        assert!(
            Instant::now() < until,
            "left behind: {namespaces:?}, processes {alive:?}, {folder:?}: {}",
            folder.exists()
        );
        thread::sleep(Duration::from_millis(10));
    }
}

fn start(role: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(this_test()).arg(role).stdout(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

fn signal(child: &Child, signal: i32) {
    let pid = i32::try_from(child.id()).unwrap();
    // SAFETY: the process is a child that was not waited for yet.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

fn a_lab_that_is_dropped_leaves_nothing() {
    let mut lab = Lab::up(Cluster::read(DEMO).unwrap(), options("role=daemon")).unwrap();
    lab.wait_synced(PATIENCE).unwrap();
    // A stray command of a user, in a pod.
    let netns = lab.netns(&Vantage::pod("web-1")).unwrap();
    let mut stray = netns.command("sleep").arg("600").spawn().unwrap();
    let state = lab.state().clone();
    assert_eq!(machine::namespaces(&state.prefix).len(), 2 + 1 + 2 + 7);
    let until = Instant::now() + PATIENCE;
    while processes(&state).len() < 3 {
        assert!(Instant::now() < until, "two daemons and a stray command run in the lab");
        thread::sleep(Duration::from_millis(5));
    }
    let running = processes(&state);
    drop(lab);
    assert_eq!(stray.wait().unwrap().signal(), Some(libc::SIGKILL));
    // Nothing is waited for here: dropping waits.
    assert_eq!(machine::namespaces(&state.prefix), Vec::<String>::new());
    assert!(!state.folder.exists() && running.iter().all(|pid| !machine::is_alive(*pid)));
}

fn an_owner_that_ends_leaves_nothing() {
    for how in [libc::SIGKILL, libc::SIGTERM, libc::SIGABRT] {
        let (mut child, mut stdout) = start("role=owner");
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let lab: LabState = serde_json::from_str(&line).unwrap();
        let running = processes(&lab);
        assert_eq!(running.len(), 2, "a daemon a node");
        assert!(lab.folder.join("manifests/cluster.json").exists());
        signal(&child, how);
        assert_eq!(child.wait().unwrap().signal(), Some(how));
        assert_gone(&lab.prefix, &lab.folder, &running);
    }
}

fn a_run_that_is_interrupted_leaves_nothing() {
    for how in [libc::SIGINT, libc::SIGTERM] {
        let (mut child, _stdout) = start("role=runner");
        let until = Instant::now() + PATIENCE;
        let lab = loop {
            let own = LabState::all().unwrap().into_iter().find(|lab| lab.owner == child.id());
            if let Some(lab) = own {
                break lab;
            }
            assert!(Instant::now() < until && child.try_wait().unwrap().is_none(), "the run makes a lab");
            thread::sleep(Duration::from_millis(2));
        };
        // Let it get into its probes, which go on for seconds where nothing answers.
        thread::sleep(Duration::from_millis(400));
        signal(&child, how);
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(128 + how), "{status}");
        assert!(machine::namespaces(&lab.prefix).is_empty() && !lab.folder.exists());
    }
}

fn daemons_are_waited_for() {
    let mut lab = Lab::up(Cluster::read(DEMO).unwrap(), options("role=daemon")).unwrap();
    lab.wait_synced(PATIENCE).unwrap();
    for _ in 0..3 {
        let started = Instant::now();
        let ready = lab.plan().slices.iter().flat_map(|s| s.endpoints.iter().flatten()).next().unwrap();
        let ready = ready.conditions.as_ref().unwrap().ready.unwrap();
        let pod = lab.plan().slices.iter().flat_map(|s| s.endpoints.iter().flatten()).next().unwrap();
        let pod = pod.target_ref.as_ref().unwrap().name.clone().unwrap();
        lab.set_ready(&pod, !ready).unwrap();
        lab.wait_synced(PATIENCE).unwrap();
        assert!(started.elapsed() > Duration::from_millis(100), "the daemon takes 100 ms");
    }
    let log = lab.daemon_log("node-2").unwrap();
    assert_eq!(fs::read_to_string(log).unwrap(), "daemon of node-2 starts\n");
    let pid = lab.daemon_pid("node-1").unwrap();
    lab.stop_daemon("node-1").unwrap();
    assert!(!machine::is_alive(pid) && lab.daemon_pid("node-1").is_none());
    assert!(lab.delete(&ObjectRef::new("Service", "default", "nothing")).is_err());
    // A daemon that is started anew is waited for, and the other one is not.
    lab.start_daemon("node-1").unwrap();
    lab.wait_synced(Duration::from_secs(3)).unwrap_err();
    let text = fs::read_to_string(lab.manifests().join("cluster.json")).unwrap();
    fs::write(lab.manifests().join("cluster.json"), text).unwrap();
    lab.wait_synced(PATIENCE).unwrap();
    lab.down().unwrap();
}

fn a_daemon_that_fails_is_shown_with_its_log() {
    let mut options = options("role=daemon");
    options.daemon.as_mut().unwrap().args.push("broken".into());
    let mut lab = Lab::up(Cluster::new(), options).unwrap();
    let error = lab.wait_synced(PATIENCE).unwrap_err().to_string();
    assert!(
        error.contains("node-1 ended with exit status: 3") && error.contains("no such mode: broken"),
        "{error}"
    );
}

fn a_kept_lab_obeys() {
    let folder = tempfile::tempdir().unwrap();
    let pod = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: c, ports: [{{containerPort: 8080}}]}}]}}}}\n"
        )
    };
    fs::write(folder.path().join("pods.yaml"), pod("one")).unwrap();
    let keeper = || {
        let mut command = Command::new(this_test());
        command.arg("role=keeper");
        command
    };
    let lab = keeper::up(folder.path(), &options("role=daemon"), PATIENCE, keeper()).unwrap();
    let id = Some(lab.id.as_str());
    let running = processes(&lab);
    let sh = |place: &str, script: &str| keeper::exec(id, place, &["sh".into(), "-c".into(), script.into()]);
    assert_eq!(sh("one", "ip -o address show eth0 | grep -q 10.244.1.2/24 && exit 42").unwrap(), 42);
    assert_eq!(sh("node-1", "ip route | grep -q '^10.244.2.0/24 via 192.168.77.12'").unwrap(), 0);
    assert_eq!(sh("outside", "kill -TERM $$").unwrap(), 128 + libc::SIGTERM);
    let run = |program: &str| keeper::exec(id, "one", &[program.into()]).unwrap();
    fs::write(folder.path().join("data"), "").unwrap();
    let not_executable = folder.path().join("data").display().to_string();
    assert_eq!([run("nosuch"), run("/nosuch/file"), run(&not_executable), run("/")], [127, 127, 126, 126]);
    let error = sh("two", "true").unwrap_err().to_string();
    assert!(error.contains("no pod or node named two") && error.contains("default/one"), "{error}");

    fs::write(folder.path().join("more.yaml"), pod("two")).unwrap();
    keeper::apply(id, folder.path()).unwrap();
    assert_eq!(sh("two", "true").unwrap(), 0);
    fs::write(folder.path().join("more.yaml"), "kind: [").unwrap();
    let error = keeper::apply(id, folder.path()).unwrap_err().to_string();
    assert!(error.contains("more.yaml"), "{error}");

    let name = format!("named-{}", std::process::id());
    let up = || keeper::up_named(Some(&name), folder.path(), &options("role=daemon"), PATIENCE, keeper());
    fs::remove_file(folder.path().join("more.yaml")).unwrap();
    let named = up().unwrap();
    assert_eq!(named.id, name);
    let error = up().unwrap_err().to_string();
    assert!(error.contains(&format!("a lab named {name} is there already")), "{error}");
    let error = LabState::find(None).unwrap_err().to_string();
    assert!(error.contains(&lab.id) && error.contains(&name) && error.contains("--name"), "{error}");
    assert_eq!((named.nodes().collect::<Vec<_>>(), named.pods()), (vec!["node-1", "node-2"], 3));
    assert!(fs::read_to_string(named.log_of("node-2").unwrap()).unwrap().contains("daemon of node-2 starts"));
    assert!(named.log_of("node-3").unwrap_err().to_string().contains("node-1, node-2"));
    assert_eq!(keeper::down(Some(&name)).unwrap().id, name);

    // Daemons take signals, though their keeper's threads block them.
    let daemons: Vec<u32> = running.iter().copied().filter(|pid| machine::is_alive(*pid)).collect();
    assert_eq!(daemons.len(), 2);
    for pid in &daemons {
        // SAFETY: no pointers are passed, and the process was seen to run in the lab.
        assert_eq!(unsafe { libc::kill(i32::try_from(*pid).unwrap(), libc::SIGTERM) }, 0);
    }
    let until = Instant::now() + PATIENCE;
    while daemons.iter().any(|pid| is_running(*pid)) {
        assert!(Instant::now() < until, "a daemon ignores SIGTERM");
        thread::sleep(Duration::from_millis(5));
    }

    fs::write(folder.path().join("more.yaml"), "kind: [").unwrap();
    assert_eq!(keeper::down(id).unwrap().id, lab.id);
    assert_gone(&lab.prefix, &lab.folder, &running);
    assert!(keeper::down(id).is_err());
    let error =
        keeper::up(folder.path(), &LabOptions::default(), PATIENCE, keeper()).unwrap_err().to_string();
    assert!(error.contains("more.yaml"), "{error}");
}
