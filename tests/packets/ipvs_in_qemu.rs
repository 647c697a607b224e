//! IPVS on a kernel that has nf_tables, too, as nodes have: what is left to iptables is nf_tables' then. One row of each
//! kind; user-mode Linux has all of them.

use portcullis_lab::qemu;

use crate::bed::Setup;
use crate::expectation::{only, refused, spread};
use crate::mode::Mode;
use crate::row::{client, cluster_ip, node, pod, row};

const WEB: [&str; 3] = ["a", "b", "c"];

#[test]
fn cluster_ips_by_ipvs_beside_nf_tables_in_qemu() {
    qemu::inside(|| {
        let bed = Setup::of("cluster-ips.yaml").mode(Mode::Ipvs).up();
        bed.check(&[
            row("TCP from a pod", client(1), cluster_ip("web", 80), spread(&WEB).kept()),
            row("UDP from a pod", client(2), cluster_ip("names", 53).udp(), spread(&WEB).kept()),
            row("a node's own TCP", node(1), cluster_ip("web", 80), spread(&WEB)),
            row("a pod meets itself", pod("a"), cluster_ip("alone", 80), only("a").masqueraded_by(1)),
            row("no endpoint", client(1), cluster_ip("none", 80), refused()),
        ]);
        let rules = bed.rules("node-1", "iptables", "nat");
        assert!(rules.contains("-A POSTROUTING"), "{rules}");
    });
}
