//! SCTP: associations in QEMU, and rules on the host, whose kernel may have no SCTP sockets.

use portcullis_lab::Protocol;

use crate::expectation::{lost, spread};
use crate::mode::Mode;
use crate::row::{client, cluster_ip, node, node_port, outside, row};
use crate::testbed::Setup;
use crate::tools::Flavour;

/// The endpoints of the Service.
const TUNNEL: [&str; 2] = ["a", "b"];

pub(crate) fn sctp_associations(mode: Mode) {
    assert!(Protocol::Sctp.is_supported(), "this kernel has SCTP sockets");
    let testbed = Setup::new("sctp.yaml").mode(mode).up();
    testbed.check(&[
        row("from a pod", client(1), cluster_ip("tunnel", 9900).sctp(), spread(&TUNNEL).kept()),
        row("a node's own", node(2), cluster_ip("tunnel", 9900).sctp().v4(), spread(&TUNNEL)),
        row(
            "from outside",
            outside(),
            node_port(1, "tunnel", 9900).sctp().v6(),
            spread(&TUNNEL).masqueraded_by(1),
        ),
        // The client ignores "port unreachable".
        row("no endpoint", client(2), cluster_ip("no-tunnel", 9901).sctp(), lost()),
    ]);
}

#[test]
fn sctp_by_its_rules() {
    for flavour in [Flavour::Nft, Flavour::Legacy] {
        let testbed = Setup::new("sctp.yaml").flavour(flavour).up();
        let plan = testbed.lab.plan();
        let ips = |service: &str| plan.service(service).unwrap().spec.clone().unwrap().cluster_ips.unwrap();
        for (family, tool) in ["iptables", "ip6tables"].into_iter().enumerate() {
            let nat = testbed.rules("node-1", tool, "nat");
            let filter = testbed.rules("node-1", tool, "filter");
            let prefix = [32, 128][family];
            let has = |rules: &str, words: &[&str]| {
                let count = rules.lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
                assert!(count > 0, "{flavour:?} {tool}: no rule has {words:?}:\n{rules}");
                count
            };
            let (tunnel, none) = (&ips("tunnel")[family], &ips("no-tunnel")[family]);
            has(
                &nat,
                &[
                    "-A KUBE-SERVICES",
                    &format!("-d {tunnel}/{prefix}"),
                    "-p sctp",
                    "--dport 9900",
                    "-j KUBE-SVC-",
                ],
            );
            has(&nat, &["-A KUBE-NODEPORTS", "-p sctp", "--dport 30099", "-j KUBE-EXT-"]);
            has(
                &filter,
                &["-A KUBE-SERVICES", &format!("-d {none}/{prefix}"), "-p sctp", "--dport 9901", "-j REJECT"],
            );
            let endpoints = has(&nat, &["-A KUBE-SEP-", "-p sctp", "-j DNAT", ":9000"]);
            assert_eq!(endpoints, 2, "{flavour:?} {tool}: a rule for each pod");
        }
    }
}
