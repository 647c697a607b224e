//! Tests of `portcullis bundle`: what the archive has, what it says about the rest, and that no secret is in it.

mod archive;
mod planted;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use archive::Archive;
use planted::Planted;

#[path = "../../netlink/tests/namespace/mod.rs"]
mod namespace;

/// Runs `portcullis bundle` in a folder. Returns its exit status, and its messages.
fn bundle(folder: &Path, arguments: &[&str], planted: &Planted) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.arg("bundle").args(arguments).current_dir(folder).env_remove("RUST_LOG");
    command.env("PORTCULLIS_TEST_PASSWORD", planted.secret("environment"));
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    assert!(stdout.is_empty(), "{}", String::from_utf8_lossy(&stdout));
    (status.code().expect("no signal"), String::from_utf8(stderr).expect("it prints UTF-8"))
}

/// Serves these responses by path until the test ends; other paths get no response.
fn serve(responses: Vec<(&'static str, String)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound").to_string();
    thread::spawn(move || {
        let mut unanswered = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = [0; 1024];
            let length = stream.read(&mut request).expect("a request");
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            match responses.iter().find(|(known, _)| *known == path) {
                Some((_, body)) => {
                    write!(stream, "HTTP/1.0 200 OK\r\n\r\n{body}").expect("it is read");
                }
                None => unanswered.push(stream),
            }
        }
    });
    address
}

#[test]
fn no_planted_secret_is_in_the_archive() {
    namespace::inside(|| {
        ip("link set lo up");
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let planted = Planted::new(folder.path());
        let nft = format!(
            "add table ip other {{ comment \"password={}\" ; }}",
            planted.secret("comment of another program")
        );
        assert!(Command::new("nft").arg(&nft).status().expect("nft").success());
        let flags = format!("--master=https://admin:{}@10.0.0.1\n", planted.secret("flag of the daemon"));
        let metrics = serve(vec![
            ("/flagz", flags),
            ("/metrics", format!("# token: {}\n", planted.secret("metrics"))),
            ("/metrics/services", String::new()),
            ("/proxyMode", "nftables".to_owned()),
            ("/configz", planted.json("configz")),
            ("/statusz", String::new()),
        ]);
        let health = serve(vec![("/healthz", planted.json("healthz")), ("/livez", "ok".to_owned())]);
        let servers =
            [format!("--metrics-bind-address={metrics}"), format!("--healthz-bind-address={health}")];
        let log = folder.path().join("daemon.log");
        let master =
            format!("--master=https://root:{}@127.0.0.1:9", planted.secret("address of the API server"));
        let common =
            ["--hostname-override=node-1", "--mode=nftables", &servers[0], &servers[1], "--log-file"];
        let common = [&common[..], &[log.to_str().expect("UTF-8")]].concat();
        let bare = planted.path("bare.log");
        let (kubeconfig, manifests, invalid) =
            (planted.path("kubeconfig"), planted.path("manifests"), planted.path("invalid.yaml"));
        let rows: [(&str, &[&str], &str); 3] = [
            ("manifests", &["--manifests", &manifests], "rules/wanted.txt"),
            (
                "api-server",
                &["--kubeconfig", &kubeconfig, &master, "--request-timeout=1s", "--log-file", &bare],
                "configuration/settings.toml",
            ),
            ("invalid", &["--config", &invalid, "--kubeconfig", &kubeconfig], "configuration/errors.txt"),
        ];
        for (name, arguments, present) in rows {
            let file = format!("{name}.tar.gz");
            let (code, messages) =
                bundle(folder.path(), &[&common[..], arguments, &["-o", &file]].concat(), &planted);
            assert!(code < 2, "{name}: {messages}");
            let path = folder.path().join(&file);
            assert_eq!(path.metadata().expect("it is written").permissions().mode() & 0o777, 0o600);
            let archive = Archive::read(&std::fs::read(&path).expect("it can be read"));
            let has = |name: &str| archive.files.get(name).is_some_and(|text| !text.is_empty());
            for part in
                [present, "log.txt", "rules/nft.txt", "rules/nf_tables.txt", "daemon/flagz.txt", "index.json"]
            {
                let is_there = has(part) || part == "rules/nf_tables.txt";
                assert!(is_there, "{part} of {name}: {}", archive.index());
            }
            assert!(archive.files["log.txt"].contains("the log says"), "what is no secret stays");
            planted.assert_absent(name, &archive, &messages);
        }
    });
}

#[test]
fn archive_of_a_running_daemon_is_complete() {
    namespace::inside(|| {
        ip("link set lo up");
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let planted = Planted::new(folder.path());
        let socket = format!("--socket={}", folder.path().join("portcullis.sock").display());
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/explain/shop.yaml");
        let settings = [
            "--mode=nftables",
            "--network-policy",
            "--hostname-override=node-1",
            &socket,
            "--manifests",
            manifests.to_str().expect("UTF-8"),
        ];
        let log = folder.path().join("daemon.log");
        let mut daemon = Daemon::start(&settings, &log);
        daemon.wait();
        let arguments = [&settings[..], &["--log-file", "daemon.log"]].concat();
        let (code, messages) = bundle(folder.path(), &arguments, &planted);
        assert_eq!(code, 0, "{messages}");
        let written = messages.lines().find_map(|line| line.strip_prefix("portcullis: wrote "));
        let written = written.unwrap_or_else(|| panic!("{messages}"));
        assert!(written.starts_with("portcullis-node-1-") && written.ends_with(".tar.gz"), "{written}");
        let archive = Archive::read(&std::fs::read(folder.path().join(written)).expect("it is written"));
        let index = archive.index();
        assert_eq!((&index["kind"], &index["complete"]), (&"BundleIndex".into(), &true.into()), "{index}");
        assert_eq!(archive.files["daemon/proxy-mode.txt"].trim(), "nftables");
        assert_eq!(archive.files["rules/diff.txt"], "", "the daemon has written all rules");
        assert!(archive.files["rules/nf_tables.txt"].contains("table ip portcullis"));
        assert!(archive.files["daemon/metrics.txt"].contains("portcullis_source_synced"));
        assert!(archive.files["log.txt"].contains("first sync is done"));
        assert!(archive.files["daemon/status.json"].contains("\"kind\":\"Status\""));
        assert!(archive.files["daemon/timeline.json"].contains("\"kind\":\"Timeline\""));
        for part in ["kernel/sysctls.txt", "kernel/version.txt", "rules/wanted.txt", "version.txt"] {
            assert!(!archive.files[part].is_empty(), "{part}");
        }
        assert!(archive.files["kernel/sysctls.txt"].contains("net.ipv4.ip_forward = "));
        // IPVS is not used, and there is one variant of iptables at most.
        let reason = archive.part("rules/iptables-legacy.txt");
        assert_eq!(reason["status"], "notApplicable", "{reason}");
        drop(daemon);
    });
}

#[test]
fn archive_without_a_daemon_names_what_is_missing() {
    namespace::inside(|| {
        ip("link set lo up");
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let planted = Planted::new(folder.path());
        let manifests = planted.path("manifests");
        let settings = ["--mode=nftables", "--hostname-override=node-1", "--manifests", &manifests];
        let arguments = [&settings[..], &["--log-file", "no-such.log", "-o", "a.tar.gz"]].concat();
        let (code, messages) = bundle(folder.path(), &arguments, &planted);
        assert_eq!(code, 1, "{messages}");
        let archive = Archive::read(&std::fs::read(folder.path().join("a.tar.gz")).expect("it is written"));
        for (part, reason) in [("daemon/healthz.json", "refused"), ("log.txt", "no-such.log: No such file")] {
            let entry = archive.part(part);
            assert_eq!(entry["status"], "failed", "{entry}");
            assert!(entry["reason"].as_str().is_some_and(|text| text.contains(reason)), "{entry}");
            assert!(messages.contains(&format!("missing or incomplete: {part}: ")), "{messages}");
            assert!(!archive.files.contains_key(part), "{part}");
        }
        assert!(archive.files.contains_key("rules/wanted.txt"));
        assert_eq!(archive.index()["complete"], false);
    });
}

/// A daemon that accepts connections and does not respond delays the archive once for each server, not for each path.
#[test]
fn stuck_daemon_does_not_prevent_the_archive() {
    namespace::inside(|| {
        ip("link set lo up");
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let planted = Planted::new(folder.path());
        let (metrics, health) = (serve(Vec::new()), serve(Vec::new()));
        let servers =
            [format!("--metrics-bind-address={metrics}"), format!("--healthz-bind-address={health}")];
        let manifests = planted.path("manifests");
        let arguments = [
            "--manifests",
            &manifests,
            "--hostname-override=node-1",
            &servers[0],
            &servers[1],
            "-o",
            "a.tar.gz",
        ];
        let (code, messages) = bundle(folder.path(), &arguments, &planted);
        assert_eq!(code, 1, "{messages}");
        let archive = Archive::read(&std::fs::read(folder.path().join("a.tar.gz")).expect("it is written"));
        let later = archive.part("daemon/flagz.txt");
        assert!(later["reason"].as_str().is_some_and(|reason| reason.contains("earlier request")), "{later}");
        assert!(archive.files.contains_key("rules/wanted.txt"));
    });
}

#[test]
fn archive_goes_to_standard_output_and_failures_have_status_2() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let planted = Planted::new(folder.path());
    let (manifests, log) = (planted.path("manifests"), planted.path("daemon.log"));
    let arguments =
        ["bundle", "--manifests", &manifests, "--hostname-override=node-1", "--log-file", &log, "-o"];
    let run = |output: &str, stdout: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        let child = command.args(arguments).arg(output).stdout(stdout).stderr(Stdio::piped()).spawn();
        child.expect("the binary runs").wait_with_output().expect("it ends")
    };
    namespace::inside(move || {
        let output = run("-", Stdio::piped());
        assert_eq!(output.status.code(), Some(1));
        assert!(Archive::read(&output.stdout).files.contains_key("index.json"));
        let (_, closed) = std::io::pipe().expect("a pipe");
        let unread = run("-", closed.into());
        let messages = String::from_utf8_lossy(&unread.stderr);
        assert_eq!(unread.status.code(), Some(1), "{messages}");
        assert!(!messages.contains("pipe") && !messages.contains("panic"), "{messages}");
        let failed = run("/no-such-folder/a.tar.gz", Stdio::piped());
        let messages = String::from_utf8_lossy(&failed.stderr);
        assert_eq!(failed.status.code(), Some(2), "{messages}");
        assert!(messages.contains("cannot write /no-such-folder/a.tar.gz: No such file"), "{messages}");
    });
}

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().expect("ip").success(), "{arguments}");
}

/// A daemon that ends with the test.
struct Daemon(Child);

impl Daemon {
    fn start(settings: &[&str], log: &Path) -> Daemon {
        let log = std::fs::File::create(log).expect("the log can be written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(settings).stderr(log).env_remove("RUST_LOG");
        Daemon(command.spawn().expect("the binary runs"))
    }

    /// Waits for the first sync.
    fn wait(&mut self) {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            let mut text = String::new();
            if let Ok(mut stream) = std::net::TcpStream::connect("127.0.0.1:10256") {
                write!(stream, "GET /healthz HTTP/1.0\r\n\r\n").expect("it reads");
                drop(stream.read_to_string(&mut text));
            }
            if text.starts_with("HTTP/1.0 200") || text.starts_with("HTTP/1.1 200") {
                return;
            }
            assert!(self.0.try_wait().expect("it can be waited for").is_none(), "the daemon ended");
            thread::sleep(Duration::from_millis(50));
        }
        panic!("the daemon is not healthy");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
