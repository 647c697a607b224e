//! IPVS mode with iptables-nft on a kernel with nf_tables, as on real nodes. One row of each kind; all rows run in
//! user-mode Linux.

use portcullis_machines::qemu;

use crate::expectation::{only, refused, spread};
use crate::mode::Mode;
use crate::row::{client, cluster_ip, node, pod, row};
use crate::testbed::Setup;

const WEB: [&str; 3] = ["a", "b", "c"];

#[test]
fn cluster_ips_by_ipvs_beside_nf_tables_in_qemu() {
    qemu::inside(|| {
        let testbed = Setup::new("cluster-ips.yaml").mode(Mode::Ipvs).up();
        testbed.check(&[
            row("TCP from a pod", client(1), cluster_ip("web", 80), spread(&WEB).kept()),
            row("UDP from a pod", client(2), cluster_ip("names", 53).udp(), spread(&WEB).kept()),
            row("a node's own TCP", node(1), cluster_ip("web", 80), spread(&WEB)),
            row("a pod connects to itself", pod("a"), cluster_ip("alone", 80), only("a").masqueraded_by(1)),
            row("no endpoint", client(1), cluster_ip("none", 80), refused()),
        ]);
        let rules = testbed.rules("node-1", "iptables", "nat");
        assert!(rules.contains("-A POSTROUTING"), "{rules}");
    });
}
