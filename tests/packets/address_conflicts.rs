//! Services that claim addresses of other Services (CVE-2020-8554).

use portcullis_lab::ObjectRef;

use crate::expectation::only;
use crate::mode::Mode;
use crate::row::{at, client, cluster_ip, load_balancer, node, outside, row};
use crate::testbed::Setup;

#[rustfmt::skip]
pub(crate) fn an_address_stays_with_its_service(mode: Mode) {
    let mut testbed = Setup::new("address-conflicts.yaml").mode(mode).up();
    let rows = [
        row("an external IP takes no ClusterIP: a pod", client(1), cluster_ip("victim", 80), only("a").kept()),
        row("an external IP takes no ClusterIP: a pod of another node", client(2), cluster_ip("victim", 80), only("a").kept()),
        row("an external IP takes no ClusterIP: a node", node(2), cluster_ip("victim", 80), only("a")),
        row("an external IP takes no load balancer address", outside(), load_balancer("balanced", 80), only("a").masqueraded_by(1)),
        row("the other Service has its ClusterIP", client(1), cluster_ip("a-claims-the-cluster-ip", 80), only("b")),
    ];
    testbed.check(&rows);
    assert_eq!(testbed.metric("node-1", "portcullis_unserved_frontends", "reason=\"shadowed\""), 4.0);

    testbed.lab.stop_daemon("node-1").unwrap();
    testbed.lab.start_daemon("node-1").unwrap();
    testbed.synced();
    testbed.check(&rows);

    testbed.lab.delete(&ObjectRef::new("Service", "default", "victim")).unwrap();
    testbed.synced();
    let freed = at(&["10.96.8.1:80", "[fd00:10:96::801]:80"]);
    testbed.check(&[row("an address of a deleted Service goes to the next claimant", client(1), freed, only("b"))]);
    assert_eq!(testbed.metric("node-1", "portcullis_unserved_frontends", "reason=\"shadowed\""), 2.0);
}
