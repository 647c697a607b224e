//! Pods of one bridge: where the kernel keeps packets between them from netfilter, the daemon has it not do so.

use std::fs;

use crate::daemons::NODES;
use crate::town::Town;

const OWN_NAMESPACE: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: own, namespace: x}, spec: {
  podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}}";

/// y/b and x/a are on node-1, y/c and x/b on node-2.
const BETWEEN_NEIGHBOURS: &str = "
    y/b → x/a 80/tcp deny
    y/c → x/b 80/udp deny
    x/a → x/c 80/tcp allow";

const SETTINGS: [&str; 2] =
    ["/proc/sys/net/bridge/bridge-nf-call-iptables", "/proc/sys/net/bridge/bridge-nf-call-ip6tables"];

#[test]
fn packets_between_pods_of_a_bridge_are_judged() {
    let mut town = Town::enforcing(&[]);
    town.apply(OWN_NAMESPACE);
    for node in NODES {
        town.kill(node);
        let off = || SETTINGS.iter().for_each(|setting| fs::write(setting, "0").unwrap());
        town.netns(node).run(off).unwrap();
    }
    let open = BETWEEN_NEIGHBOURS.replace("deny", "allow");
    town.check("the kernel hides them", &open);
    town.restart(&["--network-policy"], |_, _| ());
    town.check("the daemon has it show them", BETWEEN_NEIGHBOURS);
    for node in NODES {
        let read = || SETTINGS.map(|setting| fs::read_to_string(setting).unwrap().trim().to_owned());
        assert_eq!(town.netns(node).run(read).unwrap(), ["1", "1"], "{node}");
    }
}
