//! Faults of the kubeconfig's exec plugin with the whole program: rules stay, health and a metric tell, also when the last credential
//! has expired, and a repaired plugin is run without help.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use crate::api_server::ApiServer;
use crate::cluster::{server, slice};
use crate::daemon::{Daemon, HEALTH, METRICS, Node, program};
use crate::http::get;
use crate::namespace;
use crate::plugin::{PAST, Plugin, prints};

/// The time until the first credential expires. It is renewed after four fifths.
const LIFETIME: &str = "40 seconds";

/// A way to break a plugin.
enum Break {
    /// Its script is replaced by this one.
    Script(String),
    /// Its file is removed.
    Remove,
    /// Its file cannot be executed.
    Forbid,
}

impl Break {
    fn apply(&self, plugin: &Plugin) {
        let path = plugin.folder.path().join("plugin");
        match self {
            Break::Script(script) => plugin.set(script),
            Break::Remove => fs::remove_file(path).unwrap(),
            Break::Forbid => fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap(),
        }
    }
}

/// Returns faults with a text that health has.
fn faults() -> Vec<(&'static str, Break, &'static str)> {
    let script = |text: &str| Break::Script(text.to_owned());
    vec![
        ("hangs", script("sleep 1000"), "did not end within"),
        ("a child of it hangs", script("sleep 1000 & exit 1"), "failed with exit status: 1"),
        ("fails", script("echo no session >&2; exit 1"), "no session"),
        ("dies", script("kill -9 $$"), "signal"),
        ("prints without end", script("while :; do echo secret; done"), "printed more than 1048576 bytes"),
        ("prints nothing", script("exit 0"), "it printed nothing"),
        ("prints garbage", script("head -c 1000 /dev/urandom"), "not an ExecCredential"),
        (
            "prints a part of a credential",
            script(&prints("second", "").replace("}}", "")),
            "not an ExecCredential",
        ),
        ("prints no token", script(&prints("", "1 hour")), "token"),
        ("no plugin", Break::Remove, "cannot be run"),
        ("no permission", Break::Forbid, "cannot be run"),
        (
            "its credentials have expired",
            Break::Script(prints("expired", PAST)),
            "the API server rejected its credential",
        ),
        (
            "its credentials are rejected",
            Break::Script(prints("wrong", "1 hour")),
            "the API server rejected its credential",
        ),
    ]
}

fn serves(endpoint: &str) -> bool {
    namespace::run("nft list ruleset").contains(&format!("{endpoint} . 8080"))
}

/// Returns true if `/healthz` succeeds and contains all texts.
fn health_has(texts: &[&str]) -> bool {
    get(HEALTH, "/healthz")
        .is_some_and(|answer| answer.contains(" 200 ") && texts.iter().all(|text| answer.contains(text)))
}

fn is_clean() -> bool {
    get(HEALTH, "/healthz").is_some_and(|answer| answer.contains(" 200 ") && !answer.contains("\"problems\""))
}

/// Returns true if the metric has a value.
fn unusable_is(value: u8) -> bool {
    get(METRICS, "/metrics")
        .is_some_and(|text| text.contains(&format!("\nportcullis_credentials_unusable {value}\n")))
}

fn start(node: &Node, server: &ApiServer, plugin: &Plugin) -> Daemon {
    let mut command = program();
    command.args(["--mode=nftables", "--tool-timeout=2s", "--kubeconfig"]).arg(plugin.kubeconfig(server));
    node.spawn(command)
}

fn break_and_repair((name, fault, reason): (&str, Break, &str)) {
    let node = Node::new();
    let server = server("10.244.0.100");
    server.require_token("first");
    let plugin = Plugin::new(&prints("first", LIFETIME));
    let mut daemon = start(&node, &server, &plugin);
    daemon.wait_until("the Service is served", || serves("10.244.0.100"));
    daemon.wait_until("no problem", || is_clean() && unusable_is(0));

    // While the last credential is valid, or at least the watches are open, changes are followed.
    fault.apply(&plugin);
    server.apply(slice("10.244.0.101"));
    daemon.wait_until(&format!("{name}: changes are followed"), || serves("10.244.0.101"));
    // The API server takes it no more.
    let is_rejected = reason.contains("rejected");
    let used_up = if is_rejected { reason } else { "no request is sent without valid credentials" };
    if is_rejected {
        server.require_token("second");
        server.disconnect_all();
    }
    daemon.wait_until(&format!("{name}: it is reported when nothing is left"), || {
        health_has(&["plugin", reason, used_up]) && unusable_is(1)
    });
    server.require_token("second");
    server.disconnect_all();
    server.apply(slice("10.244.0.102"));
    // A restart, which a service manager may do meanwhile, changes nothing.
    if !matches!(fault, Break::Remove | Break::Forbid) {
        drop(daemon);
        daemon = start(&node, &server, &plugin);
        daemon.wait_until(&format!("{name}: it is reported by the next daemon"), || {
            get(HEALTH, "/healthz").is_some_and(|answer| answer.contains(reason)) && unusable_is(1)
        });
    }
    assert!(
        get(HEALTH, "/livez").is_some_and(|answer| answer.contains(" 200 ")),
        "{name}: a restart cannot help"
    );
    assert!(serves("10.244.0.101"), "{name}: rules were removed\n{}", daemon.log());
    let log = daemon.log();
    assert!(log.contains(reason) && !log.contains("secret"), "{name}: {log}");

    plugin.set(&prints("second", "1 hour"));
    let start = Instant::now();
    daemon.wait_until(&format!("{name}: the repaired plugin is used"), || {
        assert!(serves("10.244.0.101") || serves("10.244.0.102"), "{name}: no endpoint is served");
        serves("10.244.0.102")
    });
    println!("exec plugin: {name:40} recovered in {:5} ms", start.elapsed().as_millis());
    daemon.wait_until(&format!("{name}: no problem remains"), || is_clean() && unusable_is(0));
}

#[test]
fn no_fault_of_the_exec_plugin_removes_rules_or_needs_help() {
    // They mostly wait for the end of a credential, so they run at the same time, each on a node of its own.
    std::thread::scope(|scope| {
        for row in faults() {
            scope.spawn(move || namespace::inside(move || break_and_repair(row)));
        }
    });
}
