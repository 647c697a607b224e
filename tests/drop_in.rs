//! The binary in kube-proxy's place: its own configuration file, an API server over HTTP, a node's interfaces.
//! What it programs, and what it answers on health check ports, is held against the recordings of kube-proxy.
//!
//! Each case has a network namespace of its own; they are dealt out to a few tests, which run side by side.

mod api_server;
#[path = "../netlink/tests/namespace/mod.rs"]
mod namespace;
mod services;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api_server::ApiServer;
use portcullis::config::ProxyMode;
use portcullis_cluster::{Family, manifest};
use serde_json::Value;
use services::{Case, assert_same, cases, normalised};

/// No case waits longer for a state.
const PATIENCE: Duration = Duration::from_secs(20);

/// The cases are dealt out to so many tests.
const HANDS: usize = 4;

#[test]
fn cases_dealt_first() {
    play(0);
}

#[test]
fn cases_dealt_second() {
    play(1);
}

#[test]
fn cases_dealt_third() {
    play(2);
}

#[test]
fn cases_dealt_fourth() {
    play(3);
}

fn play(hand: usize) {
    for case in cases(ProxyMode::Iptables).iter().skip(hand).step_by(HANDS) {
        namespace::inside(|| follow(case));
    }
}

fn follow(case: &Case) {
    set_up_interfaces(case);
    case.host.commands.iter().for_each(|command| run(command));
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let server = ApiServer::start();
    let states = case.states();
    let mut stored = BTreeMap::new();
    bring(&server, &mut stored, &states[0]);
    let mut daemon = Daemon::start(case, &server, folder.path());
    for (i, state) in states.iter().enumerate() {
        let step = i + 1;
        bring(&server, &mut stored, state);
        wait_for_rules(case, step, &mut daemon);
        answers_health_checks(case, step);
    }
    assert_eq!(daemon.end(), Some(0), "{}: SIGTERM is no failure", case.name);
    // Ended, it leaves the rules.
    let last = states.len();
    assert_same(&case.name, &case.recorded_rules(last, Family::V4), &normalised(&dump(Family::V4)));
}

/// Brings the API server to a state: deletions first, then what is new or changed.
fn bring(server: &ApiServer, stored: &mut BTreeMap<(String, String), Value>, state: &Path) {
    let text = fs::read_to_string(state).expect("the state is readable");
    let documents = manifest::parse("state", &text).map(|document| document.expect("a whole document").value);
    let wanted: BTreeMap<(String, String), Value> = documents.map(|object| (key(&object), object)).collect();
    for (kind, name) in stored.keys().filter(|key| !wanted.contains_key(*key)) {
        server.delete(kind, name);
    }
    for (key, object) in &wanted {
        if stored.get(key) != Some(object) {
            server.apply(object.clone());
        }
    }
    *stored = wanted;
}

/// The resource and the name of an object, as the API's paths have them.
fn key(object: &Value) -> (String, String) {
    let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
    let plural = format!("{}s", text(&object["kind"]).to_lowercase());
    let name = text(&object["metadata"]["name"]);
    match text(&object["metadata"]["namespace"]).as_str() {
        "" => (plural, name),
        namespace => (plural, format!("{namespace}/{name}")),
    }
}

fn wait_for_rules(case: &Case, step: usize, daemon: &mut Daemon) {
    let deadline = Instant::now() + PATIENCE;
    let wanted = Family::BOTH.map(|family| case.recorded_rules(step, family));
    loop {
        let found = Family::BOTH.map(|family| normalised(&dump(family)));
        if found == wanted {
            return;
        }
        if Instant::now() > deadline || daemon.has_ended() {
            for ((family, wanted), found) in Family::BOTH.iter().zip(&wanted).zip(&found) {
                assert_same(&format!("{} step {step} {family}\n{}", case.name, daemon.log()), wanted, found);
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The addresses that answer a health check port, the status and the body are those recorded.
fn answers_health_checks(case: &Case, step: usize) {
    let path = case.recording(step).join("health.json");
    let Ok(text) = fs::read_to_string(path) else { return };
    let recorded: Value = serde_json::from_str(&text).expect("the recording is JSON");
    for service in recorded.as_array().expect("a list of Services") {
        let port = service["port"].as_u64().expect("a port") as u16;
        let wanted: Vec<&str> =
            service["listens"].as_array().expect("addresses").iter().filter_map(Value::as_str).collect();
        let ask = |ip: IpAddr| get(SocketAddr::new(ip, port));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answers: Vec<(String, String)> =
                case.host.addresses().filter_map(|ip| Some((ip.to_string(), ask(ip)?))).collect();
            let listens: Vec<&str> = answers.iter().map(|(ip, _)| ip.as_str()).collect();
            let as_recorded = |(_, answer): &(String, String)| {
                answer.contains(&format!(" {} ", service["answer"]["status"]))
                    && answer.ends_with(service["answer"]["body"].as_str().unwrap_or_default())
            };
            if listens == wanted && answers.iter().all(as_recorded) {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{} step {step}: wanted {service}, found {answers:?}",
                case.name
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn get(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout can be set");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

struct Daemon {
    child: Child,
    log: std::path::PathBuf,
}

impl Daemon {
    /// Starts it as kube-proxy is started: with a configuration file that names a kubeconfig.
    fn start(case: &Case, server: &ApiServer, folder: &Path) -> Daemon {
        let kubeconfig = server.kubeconfig(folder, "token");
        let text = fs::read_to_string(case.folder.join("config.yaml")).expect("the case has a configuration");
        let text = text.replace("mode: ''", "mode: iptables");
        let config = folder.join("config.yaml");
        let text = format!("{text}clientConnection:\n  kubeconfig: {}\n", kubeconfig.display());
        fs::write(&config, text).expect("the folder can be written to");
        let log = folder.join("log");
        let output = fs::File::create(&log).expect("the folder can be written to");
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        Daemon { child: command.spawn().expect("the binary is built"), log }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as an init system does; says with which status it ended.
    fn end(&mut self) -> Option<i32> {
        let pid = self.child.id() as libc::pid_t;
        // SAFETY: kill takes no pointers; the process is our child and not yet waited for, so the pid is its.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        self.child.wait().expect("it is our child").code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After a failed assertion it still runs.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn dump(family: Family) -> String {
    let tool = if family == Family::V4 { "iptables-save" } else { "ip6tables-save" };
    let output = Command::new(tool).output().expect("the tool runs");
    String::from_utf8(output.stdout).expect("rules are text")
}

fn set_up_interfaces(case: &Case) {
    let mut batch = String::from("link set lo up\n");
    for (i, interface) in case.host.interfaces.iter().enumerate().filter(|(_, i)| i.name != "lo") {
        let name = &interface.name;
        batch += &format!(
            "link add {name} type veth peer name peer{i}\nlink set peer{i} up\nlink set {name} up\n"
        );
        for address in &interface.addresses {
            let nodad = if address.addr().is_ipv6() { " nodad" } else { "" };
            batch += &format!("addr add {address} dev {name}{nodad}\n");
        }
    }
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("iproute2 is installed");
    ip.stdin.take().expect("it is piped").write_all(batch.as_bytes()).expect("ip reads its batch");
    assert!(ip.wait().expect("it is our child").success(), "{batch}");
}

fn run(command: &str) {
    let mut words = command.split(' ');
    let program = words.next().expect("a command");
    let status = Command::new(program).args(words).status().expect("it runs");
    assert!(status.success(), "{command}: {status}");
}
