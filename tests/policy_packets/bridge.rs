//! Pods of one bridge: the daemon enables `net.bridge.bridge-nf-call-iptables`, so that netfilter sees their packets.

use std::fs;

use crate::daemons::NODES;
use crate::test_cluster::TestCluster;

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
fn policies_apply_between_pods_of_a_bridge() {
    let mut cluster = TestCluster::enforcing(&[]);
    cluster.apply(OWN_NAMESPACE);
    for node in NODES {
        cluster.kill(node);
        let off = || SETTINGS.iter().for_each(|setting| fs::write(setting, "0").unwrap());
        cluster.netns(node).run(off).unwrap();
    }
    let open = BETWEEN_NEIGHBOURS.replace("deny", "allow");
    cluster.check("netfilter does not see the packets", &open);
    cluster.restart(&["--network-policy"], |_, _| ());
    cluster.check("the daemon has set the sysctls", BETWEEN_NEIGHBOURS);
    for node in NODES {
        let read = || SETTINGS.map(|setting| fs::read_to_string(setting).unwrap().trim().to_owned());
        assert_eq!(cluster.netns(node).run(read).unwrap(), ["1", "1"], "{node}");
    }
}
