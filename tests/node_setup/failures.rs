//! Tests of `/healthz`, `/livez` and metrics during failures and after recovery.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::api_server::ApiServer;
use crate::cluster::{rules, server, slice};
use crate::daemon::{Daemon, HEALTH, METRICS, Node, program};
use crate::http::get;
use crate::namespace;

/// Creates wrappers of the restore tools that fail while a file `broken` exists.
fn breakable_tools(folder: &Path) {
    let path = std::env::var("PATH").unwrap();
    for tool in ["iptables", "ip6tables"] {
        for infix in ["", "-nft", "-legacy"] {
            let name = format!("{tool}{infix}-restore");
            let script = format!(
                "#!/bin/sh\nif [ -e {}/broken ]; then echo 'out of luck' >&2; exit 4; fi\nPATH={path} exec {name} \"$@\"\n",
                folder.display()
            );
            let file = folder.join(name);
            fs::write(&file, script).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

/// Returns the value of a metric's first series.
fn metric(name: &str) -> f64 {
    let text = get(METRICS, "/metrics").unwrap();
    let line =
        text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    line.unwrap_or_else(|| panic!("no {name}:\n{text}")).rsplit(' ').next().unwrap().parse().unwrap()
}

fn has_status(path: &str, status: &str) -> bool {
    get(HEALTH, path).is_some_and(|answer| answer.starts_with(&format!("HTTP/1.1 {status} ")))
}

fn start(node: &Node, server: &ApiServer, mode: &str) -> Daemon {
    let mut command = program();
    let path = format!("{}:{}", node.folder.path().display(), std::env::var("PATH").unwrap());
    command.args([mode, "--master", &server.url(), "--iptables-min-sync-period=0s"]);
    command.env("PATH", path);
    node.spawn(command)
}

#[test]
fn a_failed_restore_is_reported_keeps_the_rules_and_is_retried() {
    namespace::inside(|| {
        let node = Node::new();
        breakable_tools(node.folder.path());
        let server = server("10.244.0.9");
        let mut daemon = start(&node, &server, "--mode=iptables");
        daemon.wait_until("it serves both families", || {
            let text = get(METRICS, "/metrics").unwrap_or_default();
            text.matches("\nkubeproxy_sync_proxy_rules_last_timestamp_seconds{").count() == 2
        });
        assert!(rules().contains("10.244.0.9:8080"));

        let broken = node.folder.path().join("broken");
        fs::write(&broken, "").unwrap();
        server.apply(slice("10.244.0.10"));
        daemon.wait_until("it is not healthy", || has_status("/healthz", "503"));
        let answer = get(HEALTH, "/healthz").unwrap();
        assert!(answer.contains("the last sync failed") && answer.contains("out of luck"), "{answer}");
        daemon.wait_until("a restart may help", || has_status("/livez", "503"));
        assert!(rules().contains("10.244.0.9:8080") && !rules().contains("10.244.0.10:8080"));
        assert!(metric("portcullis_sync_failures_total") > 0.0);
        assert!(metric("kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total") > 0.0);

        fs::remove_file(broken).unwrap();
        daemon.wait_until("it is healthy again", || {
            has_status("/healthz", "200") && has_status("/livez", "200")
        });
        assert!(rules().contains("10.244.0.10:8080") && !rules().contains("10.244.0.9:8080"));
        assert!(daemon.is_running());
    });
}

/// Silence of the API server fails health checks only after minutes, which unit tests check with a fake clock.
#[test]
fn a_short_outage_of_the_api_server_changes_neither_health_nor_rules() {
    for mode in ["--mode=iptables", "--mode=nftables"] {
        namespace::inside(move || {
            let node = Node::new();
            let mut server = server("10.244.0.9");
            let mut daemon = start(&node, &server, mode);
            daemon.wait_healthy();
            server.stop();
            daemon.wait_until("the outage is noticed", daemon_says_unreachable);
            assert!(has_status("/healthz", "200") && has_status("/livez", "200"));
            server.apply(slice("10.244.0.10"));
            server.restart();
            let held = || match mode {
                "--mode=iptables" => rules(),
                _ => {
                    let table = std::process::Command::new("nft")
                        .args(["list", "table", "ip", "portcullis"])
                        .output();
                    String::from_utf8(table.unwrap().stdout).unwrap()
                }
            };
            daemon.wait_until("it follows", || {
                held().contains("10.244.0.10") && !held().contains("10.244.0.9")
            });
            assert!(daemon.is_running() && has_status("/healthz", "200"));
        });
    }
}

fn daemon_says_unreachable() -> bool {
    // The metrics server may start after the health server.
    get(METRICS, "/metrics").is_some() && metric("portcullis_source_failures_total") > 0.0
}
