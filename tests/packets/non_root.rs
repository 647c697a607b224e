//! The daemon as a user other than root with CAP_NET_ADMIN only, as `deploy/kustomize/non-root` and `deploy/systemd/non-root.conf`
//! run it: after a step as root that sets sysctls (`--init-only`), and with read-only sysctls.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::expectation::{only, spread};
use crate::mode::Mode;
use crate::row::{Row, client, cluster_ip, load_balancer, node, node_port, outside, pod, row};
use crate::testbed::{PATIENCE, Setup, Testbed};

/// The user of `deploy/kustomize/non-root`.
const USER: &str = "10256";

/// Runs the program, whose path is in `PORTCULLIS`, like a container. It keeps its search path, and is opened as root: its
/// folder may be readable only by root.
const SCRIPT: &str = r#"#!/bin/sh -e
own_path=$PATH
"$PORTCULLIS" "$@" --init-only
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec 3<"$PORTCULLIS"
exec unshare --mount sh -ec '
    mount --bind /proc/sys /proc/sys
    mount -o remount,bind,ro /proc/sys
    setpriv=$(command -v setpriv)
    export PATH="$1"
    shift
    exec "$setpriv" --reuid USER --regid USER --clear-groups --no-new-privs --inh-caps=-all,+net_admin \
        --ambient-caps=-all,+net_admin --bounding-set=-all,+net_admin /proc/self/fd/3 "$@"
' sh "$own_path" "$@"
"#;

/// Writes the script to a folder, makes the folder readable for the user, and returns the path of the script.
pub(crate) fn script_in(folder: &Path) -> PathBuf {
    let script = folder.join("non-root.sh");
    fs::write(&script, SCRIPT.replace("USER", USER)).unwrap();
    for path in [folder, &script] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    script
}

/// A policy that lets only the outside host connect to pod a.
const POLICY: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a}, spec: \
    {podSelector: {matchLabels: {one: a}}, ingress: [{from: [{ipBlock: {cidr: 198.51.100.0/24}}]}]}}";

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    let web = ["a", "b", "c"];
    vec![
        row("cluster IP from a pod", client(1), cluster_ip("web", 80), spread(&web).kept()),
        row("cluster IP from a node", node(2), cluster_ip("web", 80), spread(&web)),
        row("cluster IP over UDP", client(2), cluster_ip("web", 53).udp(), spread(&web).kept()),
        row("node port", outside(), node_port(1, "web", 80), spread(&web).masqueraded_by(1)),
        row("load balancer", outside(), load_balancer("web", 80), spread(&web).masqueraded_by(1)),
        row("hairpin", pod("a"), cluster_ip("alone", 80), only("a").masqueraded_by(1)),
    ]
}

pub(crate) fn daemon_without_root(mode: Mode) {
    // The kubelet and systemd have set it.
    let oom_score_adj = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let oom_score_adj = format!("--oom-score-adj={}", oom_score_adj.trim());
    // The folder of the lab's sockets belongs to root.
    let args = ["--network-policy", &oom_score_adj, "--socket="];
    let mut testbed = Setup::new("web.yaml").mode(mode).non_root().args(&args).up();
    assert_least_privilege(&testbed);
    testbed.check(&rows());

    // Changes, with the deletion of stale UDP flows.
    let dns = testbed.address(cluster_ip("web", 53).udp());
    let mut udp: Vec<_> =
        (0..12).map(|_| testbed.from(client(1)).open(portcullis_lab::Protocol::Udp, dns).unwrap()).collect();
    udp.iter_mut().for_each(|client| assert!(client.exchange("word").responder().is_some()));
    testbed.lab.set_ready("b", false).unwrap();
    testbed.lab.set_ready("c", false).unwrap();
    testbed.synced();
    testbed.check(&[row("the remaining endpoint", client(1), cluster_ip("web", 80), only("a").kept())]);
    for client in &mut udp {
        assert_eq!(client.exchange("word").responder(), Some("default/a"), "flows move");
    }
    testbed.lab.set_ready("b", true).unwrap();
    testbed.lab.set_ready("c", true).unwrap();
    testbed.synced();

    policies_are_enforced(&mut testbed);

    // A restart finds the rules, and may change them.
    testbed.kill_daemon("node-1");
    testbed.lab.start_daemon("node-1").unwrap();
    testbed.synced();
    testbed.check(&rows());
    warnings_name_what_is_not_possible(&testbed);
}

fn policies_are_enforced(testbed: &mut Testbed) {
    let to = testbed.address(cluster_ip("alone", 80));
    let answers = |testbed: &Testbed| {
        testbed.from(client(1)).timeout(Duration::from_millis(500)).tcp(to).responder().is_some()
    };
    assert!(answers(testbed), "without policies");
    testbed.write_manifest("policy.yaml", POLICY);
    testbed.wait_until("the policy denies the connection", PATIENCE, |testbed| !answers(testbed));
    fs::remove_file(testbed.lab.manifests().join("policy.yaml")).unwrap();
    testbed.wait_until("the policy is removed", PATIENCE, answers);
}

/// The process runs as the user, with one capability.
fn assert_least_privilege(testbed: &Testbed) {
    let status = format!("/proc/{}/status", testbed.lab.daemon_pid("node-1").unwrap());
    let status = fs::read_to_string(status).unwrap();
    let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    assert_eq!(value("Uid:"), [USER; 4].join("\t"));
    assert_eq!(value("Groups:"), "");
    assert_eq!(value("NoNewPrivs:"), "1");
    for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(value(set), "0000000000001000", "{set} CAP_NET_ADMIN only");
    }
}

/// What is not possible is logged once, and nothing else.
fn warnings_name_what_is_not_possible(testbed: &Testbed) {
    let log = fs::read_to_string(testbed.lab.daemon_log("node-2").unwrap()).unwrap();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ")).collect();
    let of_legacy_tables = [
        "cannot check whether this node has legacy iptables rules, which requires root",
        "legacy tables of iptables: ",
    ];
    for warning in &warnings {
        assert!(of_legacy_tables.iter().any(|text| warning.contains(text)), "unexpected: {warning}");
    }
    assert!(warnings.len() <= of_legacy_tables.len(), "{warnings:#?}");
}
