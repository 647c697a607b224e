//! Tests of the notifications to systemd: readiness, status and watchdog.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::cluster::{rules, server, slice};
use crate::daemon::{HEALTH, Node, PATIENCE, program};
use crate::http::get;
use crate::namespace;

/// Notification socket of a service manager, and the last status received.
struct Manager {
    socket: UnixDatagram,
    status: RefCell<String>,
}

impl Manager {
    fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Manager { socket, status: RefCell::default() }
    }

    /// Returns the next message, or `None` after a short timeout.
    fn next(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
        if let Some(status) = message.lines().find_map(|line| line.strip_prefix("STATUS=")) {
            self.status.replace(status.to_owned());
        }
        Some(message)
    }

    /// Waits until the last status has this prefix.
    fn wait_for_status(&self, status: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.status.borrow().starts_with(status) {
            assert!(Instant::now() < until, "no status {status:?}: {:?}", self.status.borrow());
            self.next();
        }
    }

    /// Waits for a message with a line that has this prefix.
    fn wait_for(&self, line: &str) {
        let until = Instant::now() + PATIENCE;
        let mut received = Vec::new();
        while Instant::now() < until {
            let Some(message) = self.next() else { continue };
            if message.lines().any(|l| l.starts_with(line)) {
                return;
            }
            received.push(message);
        }
        panic!("no {line:?}: {received:?}");
    }

    /// Returns all messages received within a time.
    fn receive_for(&self, time: Duration) -> String {
        let until = Instant::now() + time;
        let mut all = String::new();
        while Instant::now() < until {
            all.extend(self.next());
        }
        all
    }
}

/// Creates wrappers of the restore tools that block while a file `stuck` exists.
fn blocking_tools(folder: &Path) {
    let path = std::env::var("PATH").unwrap();
    for tool in ["iptables", "ip6tables"] {
        for infix in ["", "-nft", "-legacy"] {
            let name = format!("{tool}{infix}-restore");
            let script = format!(
                "#!/bin/sh\nwhile [ -e {}/stuck ]; do sleep 0.1; done\nPATH={path} exec {name} \"$@\"\n",
                folder.display()
            );
            let file = folder.join(name);
            fs::write(&file, script).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

fn notified(socket: &Path, server: &str) -> Command {
    let mut command = program();
    command.args([
        "--mode=iptables",
        "--master",
        server,
        "--iptables-min-sync-period=0s",
        "--iptables-sync-period=1s",
    ]);
    command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "400000").env_remove("WATCHDOG_PID");
    command
}

#[test]
fn the_daemon_is_ready_before_the_api_server_responds_and_reports_its_status() {
    namespace::inside(|| {
        let node = Node::new();
        let socket = node.folder.path().join("notify");
        let manager = Manager::listen(&socket);
        let mut server = server("10.244.0.9");
        server.stop();
        let mut daemon = node.spawn(notified(&socket, &server.url()));
        manager.wait_for("READY=1");
        manager.wait_for("WATCHDOG=1");
        manager.wait_for_status("Problem: API server: ");
        assert!(get(HEALTH, "/livez").unwrap().contains(" 200 "));
        server.restart();
        manager.wait_for_status("Serving");
        manager.wait_for("WATCHDOG=1");
        Command::new("kill").arg(daemon.pid().to_string()).status().unwrap();
        manager.wait_for("STOPPING=1");
        assert_eq!(daemon.wait_for_exit().code(), Some(0));
    });
}

#[test]
fn a_blocked_sync_fails_livez_and_stops_watchdog_notifications() {
    namespace::inside(|| {
        let node = Node::new();
        blocking_tools(node.folder.path());
        let socket = node.folder.path().join("notify");
        let manager = Manager::listen(&socket);
        let server = server("10.244.0.9");
        let mut command = notified(&socket, &server.url());
        command.env("PATH", format!("{}:{}", node.folder.path().display(), std::env::var("PATH").unwrap()));
        let mut daemon = node.spawn(command);
        manager.wait_for_status("Serving");

        let stuck = node.folder.path().join("stuck");
        fs::write(&stuck, "").unwrap();
        server.apply(slice("10.244.0.10"));
        let live = |status: &'static str| {
            move || get(HEALTH, "/livez").is_some_and(|answer| answer.contains(status))
        };
        daemon.wait_until("it is not live", live(" 503 "));
        let answer = get(HEALTH, "/livez").unwrap();
        assert!(answer.contains("the thread that syncs Services has made no progress since"), "{answer}");
        manager.receive_for(Duration::from_millis(500));
        let received = manager.receive_for(Duration::from_secs(2));
        assert!(!received.contains("WATCHDOG=1"), "{received}");

        fs::remove_file(stuck).unwrap();
        daemon.wait_until("it is live again", live(" 200 "));
        manager.wait_for("WATCHDOG=1");
        daemon.wait_until("it has followed", || rules().contains("10.244.0.10:8080"));
    });
}
