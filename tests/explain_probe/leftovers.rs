//! Nothing remains of a probe, however it ends; and what prevents a probe.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_lab::Families;

use crate::testbed::Testbed;

/// A probe that waits: the daemon of node-2 drops the packet.
const WAITING: &str = "--from infra/monitor --to pod/shop/db:5432 --probe-timeout 60";

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < until, "not within a minute: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn tables_are_removed_however_a_probe_ends_and_mistakes_are_explained() {
    let testbed = Testbed::up("nftables", Families::V4);
    let has_tables = |place: &str| testbed.run(place, "nft list tables").contains("portcullis-probe-");
    let places = ["node-1", "infra/monitor"];
    for signal in [libc::SIGKILL, libc::SIGINT, libc::SIGTERM] {
        let mut child = testbed
            .explain_command("node-1", WAITING)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the tables are there", || places.iter().all(|place| has_tables(place)));
        // SAFETY: the child was not waited for, so its ID was not reused. `ip netns exec` becomes the program.
        assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
        child.wait().unwrap();
        wait_until("the tables are removed", || places.iter().all(|place| !has_tables(place)));
    }
    let run = testbed.explain("node-1", "--from shop/web --to pod/shop/api:8000");
    assert_eq!(run.status, 0, "{run:?}");
    assert!(places.iter().all(|place| !has_tables(place)));

    let netns = testbed.run("node-2", "ip netns identify");
    assert!(netns.contains("node-2"), "{netns}");
    // The arguments, and the error.
    let rows = [
        (
            "--from shop/api --to pod/shop/db:5432",
            "pod shop/api runs on node node-2, and its network namespace is not on this",
        ),
        (
            "--from node/node-2 --to pod/shop/web:8080",
            "node node-2 is not on this machine: run it on node node-2",
        ),
        ("--from 198.51.100.10 --to node/node-1:30080", "198.51.100.10 is neither a pod nor a node"),
        (
            "--from shop/web --to pod/shop/api:8000 --netns /nonexistent",
            "network namespace /nonexistent: No such file",
        ),
        (
            "--from shop/web --to pod/shop/api:8000 --netns /proc/self/status",
            "network namespace /proc/self/status: ",
        ),
        ("--from shop/web --to pod/shop/api:8000 --probe-timeout 0", "expected a number from 0.1 to 60"),
    ];
    for (arguments, error) in rows {
        let run = testbed.explain("node-1", arguments);
        assert!(run.status == 2 && run.errors.contains(error), "{arguments}: {run:?}");
    }
    let mut command = testbed.command("node-1", "setpriv");
    command.args([
        "--reuid",
        "65534",
        "--clear-groups",
        env!("CARGO_BIN_EXE_portcullis"),
        "explain",
        "--probe",
    ]);
    command.args(["--from", "shop/web", "--to", "pod/shop/api:8000", "--manifests"]);
    let output = command.arg("fixtures/lab/network-policy.yaml").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn json_has_the_steps_and_the_agreement() {
    let testbed = Testbed::up("nftables", Families::V4);
    let run = testbed.explain("node-1", "--from shop/web --to pod/shop/api:8000 -o json");
    let json: serde_json::Value = serde_json::from_str(&run.text).unwrap();
    let probe = &json["connections"][0]["probe"];
    assert_eq!(probe["agreement"], "agrees", "{probe:#}");
    assert_eq!(probe["result"]["kind"], "delivered");
    assert_eq!(probe["result"]["destination"], "10.244.2.2:8000");
    let steps = probe["steps"].as_array().unwrap();
    let has = |key: &str, value: &str| steps.iter().any(|step| step[key] == value);
    for (key, value) in [
        ("hook", "prerouting"),
        ("hook", "forward"),
        ("hook", "postrouting"),
        ("direction", "reply"),
        ("table", "portcullis-policy"),
        ("table", "portcullis"),
        ("verdict", "policy accept"),
    ] {
        assert!(has(key, value), "{key} {value}: {probe:#}");
    }
    assert!(!steps.iter().any(|step| step["table"].as_str().unwrap().starts_with("portcullis-probe")));
    assert!(steps.iter().any(|step| step["rule"]["handle"].as_u64().is_some()), "{probe:#}");
}
