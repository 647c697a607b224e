//! Complete removal of labs when their owner exits or is killed; labs in the background.
//!
//! The test executes itself in other roles: as the owner of a lab, as daemons, as the background process. Therefore it has
//! its own `main`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod node_tools;

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
    ClusterObjects, DaemonSpec, Lab, LabOptions, LabRecord, ObjectRef, RunOptions, Vantage, background, run,
};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/demo");
const TIMEOUT: Duration = Duration::from_secs(20);

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
    } else if has("role=background") {
        return if background::serve().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    } else if has("--list") {
        // nextest lists all tests, then the ignored ones, of which there are none.
        let listed = if has("--ignored") { &[] } else { TESTS };
        listed.iter().for_each(|(name, _)| println!("{name}: test"));
    } else {
        return run_tests(&arguments);
    }
    ExitCode::SUCCESS
}

type Test = (&'static str, fn());
const TESTS: &[Test] = &[
    ("a_dropped_lab_is_removed", a_dropped_lab_is_removed),
    ("a_lab_is_removed_when_its_owner_is_killed", a_lab_is_removed_when_its_owner_is_killed),
    ("an_interrupted_run_removes_its_lab", an_interrupted_run_removes_its_lab),
    ("wait_synced_waits_for_the_daemons", wait_synced_waits_for_the_daemons),
    ("errors_about_a_daemon_include_its_log", errors_about_a_daemon_include_its_log),
    ("a_lab_in_the_background_serves_requests", a_lab_in_the_background_serves_requests),
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
    let daemon = DaemonSpec { binary: this_test(), args: vec![role.into()], ..DaemonSpec::default() };
    LabOptions { daemon: Some(daemon), ..Default::default() }
}

/// Serves metrics like a daemon that syncs 100 ms after its manifests change; with `role=daemon broken` exits immediately.
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
        // The request is short enough for one read.
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
        // The client retries if the response is incomplete.
        let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{body}");
    }
}

/// Builds a lab, prints its record, and sleeps.
fn owner() {
    let mut lab = Lab::up(ClusterObjects::read(DEMO).unwrap(), options("role=daemon")).unwrap();
    lab.wait_synced(TIMEOUT).unwrap();
    println!("{}", serde_json::to_string(lab.record()).unwrap());
    thread::sleep(Duration::from_secs(600));
}

/// Returns the processes in the namespaces of a lab.
fn processes(lab: &LabRecord) -> Vec<u32> {
    let mut found = Vec::new();
    for namespace in node_tools::namespaces(&lab.prefix) {
        let output = Command::new("ip").args(["netns", "pids", &namespace]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        found.extend(text.lines().filter_map(|line| line.trim().parse::<u32>().ok()));
    }
    found
}

/// Returns true if a process is running, i.e. not a zombie.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

fn assert_removed(prefix: &str, folder: &Path, processes: &[u32]) {
    let until = Instant::now() + TIMEOUT;
    loop {
        let namespaces = node_tools::namespaces(prefix);
        let alive: Vec<&u32> = processes.iter().filter(|pid| node_tools::is_alive(**pid)).collect();
        if namespaces.is_empty() && alive.is_empty() && !folder.exists() {
            return;
        }
        assert!(
            Instant::now() < until,
            "not removed: {namespaces:?}, processes {alive:?}, {folder:?}: {}",
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

fn a_dropped_lab_is_removed() {
    let mut lab = Lab::up(ClusterObjects::read(DEMO).unwrap(), options("role=daemon")).unwrap();
    lab.wait_synced(TIMEOUT).unwrap();
    // A command of a user in a pod.
    let netns = lab.netns(&Vantage::pod("web-1")).unwrap();
    let mut command = netns.command("sleep").arg("600").spawn().unwrap();
    let state = lab.record().clone();
    assert_eq!(node_tools::namespaces(&state.prefix).len(), 2 + 1 + 2 + 7);
    let until = Instant::now() + TIMEOUT;
    while processes(&state).len() < 3 {
        assert!(Instant::now() < until, "expected two daemons and a command in the lab");
        thread::sleep(Duration::from_millis(5));
    }
    let running = processes(&state);
    drop(lab);
    assert_eq!(command.wait().unwrap().signal(), Some(libc::SIGKILL));
    // Dropping the lab waits for its removal.
    assert_eq!(node_tools::namespaces(&state.prefix), Vec::<String>::new());
    assert!(!state.folder.exists() && running.iter().all(|pid| !node_tools::is_alive(*pid)));
}

fn a_lab_is_removed_when_its_owner_is_killed() {
    for how in [libc::SIGKILL, libc::SIGTERM, libc::SIGABRT] {
        let (mut child, mut stdout) = start("role=owner");
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let lab: LabRecord = serde_json::from_str(&line).unwrap();
        let running = processes(&lab);
        assert_eq!(running.len(), 2, "expected a daemon per node");
        assert!(lab.folder.join("manifests/cluster.json").exists());
        signal(&child, how);
        assert_eq!(child.wait().unwrap().signal(), Some(how));
        assert_removed(&lab.prefix, &lab.folder, &running);
    }
}

fn an_interrupted_run_removes_its_lab() {
    for how in [libc::SIGINT, libc::SIGTERM] {
        let (mut child, _stdout) = start("role=runner");
        let until = Instant::now() + TIMEOUT;
        let lab = loop {
            let own = LabRecord::all().unwrap().into_iter().find(|lab| lab.owner == child.id());
            if let Some(lab) = own {
                break lab;
            }
            assert!(Instant::now() < until && child.try_wait().unwrap().is_none(), "the run built no lab");
            thread::sleep(Duration::from_millis(2));
        };
        // Wait until it probes, which takes seconds because nothing responds.
        thread::sleep(Duration::from_millis(400));
        signal(&child, how);
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(128 + how), "{status}");
        assert!(node_tools::namespaces(&lab.prefix).is_empty() && !lab.folder.exists());
    }
}

fn wait_synced_waits_for_the_daemons() {
    let mut lab = Lab::up(ClusterObjects::read(DEMO).unwrap(), options("role=daemon")).unwrap();
    lab.wait_synced(TIMEOUT).unwrap();
    for _ in 0..3 {
        let started = Instant::now();
        let ready = lab.plan().slices.iter().flat_map(|s| s.endpoints.iter().flatten()).next().unwrap();
        let ready = ready.conditions.as_ref().unwrap().ready.unwrap();
        let pod = lab.plan().slices.iter().flat_map(|s| s.endpoints.iter().flatten()).next().unwrap();
        let pod = pod.target_ref.as_ref().unwrap().name.clone().unwrap();
        lab.set_ready(&pod, !ready).unwrap();
        lab.wait_synced(TIMEOUT).unwrap();
        assert!(started.elapsed() > Duration::from_millis(100), "the daemon takes 100 ms");
    }
    let log = lab.daemon_log("node-2").unwrap();
    assert_eq!(fs::read_to_string(log).unwrap(), "daemon of node-2 starts\n");
    let pid = lab.daemon_pid("node-1").unwrap();
    lab.stop_daemon("node-1").unwrap();
    assert!(!node_tools::is_alive(pid) && lab.daemon_pid("node-1").is_none());
    assert!(lab.delete(&ObjectRef::new("Service", "default", "nothing")).is_err());
    // A restarted daemon must sync again; the other daemon need not.
    lab.start_daemon("node-1").unwrap();
    lab.wait_synced(Duration::from_secs(3)).unwrap_err();
    let text = fs::read_to_string(lab.manifests().join("cluster.json")).unwrap();
    fs::write(lab.manifests().join("cluster.json"), text).unwrap();
    lab.wait_synced(TIMEOUT).unwrap();
    lab.down().unwrap();
}

fn errors_about_a_daemon_include_its_log() {
    let mut options = options("role=daemon");
    options.daemon.as_mut().unwrap().args.push("broken".into());
    let mut lab = Lab::up(ClusterObjects::new(), options).unwrap();
    let error = lab.wait_synced(TIMEOUT).unwrap_err().to_string();
    assert!(
        error.contains("node-1 exited with exit status: 3") && error.contains("no such mode: broken"),
        "{error}"
    );
}

fn a_lab_in_the_background_serves_requests() {
    let folder = tempfile::tempdir().unwrap();
    let pod = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: c, ports: [{{containerPort: 8080}}]}}]}}}}\n"
        )
    };
    fs::write(folder.path().join("pods.yaml"), pod("one")).unwrap();
    let server = || {
        let mut command = Command::new(this_test());
        command.arg("role=background");
        command
    };
    let lab = background::up(folder.path(), &options("role=daemon"), TIMEOUT, server()).unwrap();
    let id = Some(lab.id.as_str());
    let running = processes(&lab);
    let sh = |location: &str, script: &str| {
        background::exec(id, location, &["sh".into(), "-c".into(), script.into()])
    };
    assert_eq!(sh("one", "ip -o address show eth0 | grep -q 10.244.1.2/24 && exit 42").unwrap(), 42);
    assert_eq!(sh("node-1", "ip route | grep -q '^10.244.2.0/24 via 192.168.77.12'").unwrap(), 0);
    assert_eq!(sh("outside", "kill -TERM $$").unwrap(), 128 + libc::SIGTERM);
    let run = |program: &str| background::exec(id, "one", &[program.into()]).unwrap();
    fs::write(folder.path().join("data"), "").unwrap();
    let not_executable = folder.path().join("data").display().to_string();
    assert_eq!([run("nosuch"), run("/nosuch/file"), run(&not_executable), run("/")], [127, 127, 126, 126]);
    let error = sh("two", "true").unwrap_err().to_string();
    assert!(error.contains("no pod or node named two") && error.contains("default/one"), "{error}");

    fs::write(folder.path().join("more.yaml"), pod("two")).unwrap();
    background::apply(id, folder.path()).unwrap();
    assert_eq!(sh("two", "true").unwrap(), 0);
    fs::write(folder.path().join("more.yaml"), "kind: [").unwrap();
    let error = background::apply(id, folder.path()).unwrap_err().to_string();
    assert!(error.contains("more.yaml"), "{error}");

    let name = format!("named-{}", std::process::id());
    let up = || background::up_named(Some(&name), folder.path(), &options("role=daemon"), TIMEOUT, server());
    fs::remove_file(folder.path().join("more.yaml")).unwrap();
    let named = up().unwrap();
    assert_eq!(named.id, name);
    let error = up().unwrap_err().to_string();
    assert!(error.contains(&format!("a lab named {name} already exists")), "{error}");
    let error = LabRecord::find(None).unwrap_err().to_string();
    assert!(error.contains(&lab.id) && error.contains(&name) && error.contains("--name"), "{error}");
    assert_eq!((named.nodes().collect::<Vec<_>>(), named.pods()), (vec!["node-1", "node-2"], 3));
    assert!(
        fs::read_to_string(named.log_path("node-2").unwrap()).unwrap().contains("daemon of node-2 starts")
    );
    assert!(named.log_path("node-3").unwrap_err().to_string().contains("node-1, node-2"));
    assert_eq!(background::down(Some(&name)).unwrap().id, name);

    // Daemons receive signals although the threads of the background process block them.
    let daemons: Vec<u32> = running.iter().copied().filter(|pid| node_tools::is_alive(*pid)).collect();
    assert_eq!(daemons.len(), 2);
    for pid in &daemons {
        // SAFETY: no pointers are passed, and the process was seen to run in the lab.
        assert_eq!(unsafe { libc::kill(i32::try_from(*pid).unwrap(), libc::SIGTERM) }, 0);
    }
    let until = Instant::now() + TIMEOUT;
    while daemons.iter().any(|pid| is_running(*pid)) {
        assert!(Instant::now() < until, "a daemon ignores SIGTERM");
        thread::sleep(Duration::from_millis(5));
    }

    fs::write(folder.path().join("more.yaml"), "kind: [").unwrap();
    assert_eq!(background::down(id).unwrap().id, lab.id);
    assert_removed(&lab.prefix, &lab.folder, &running);
    assert!(background::down(id).is_err());
    let error =
        background::up(folder.path(), &LabOptions::default(), TIMEOUT, server()).unwrap_err().to_string();
    assert!(error.contains("more.yaml"), "{error}");
}
