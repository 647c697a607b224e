//! Isolation of Services whose rules are rejected: all others are served, and the rejected one is reported.

use portcullis_lab::Vantage;

use crate::expectation::{lost, one_of, only, spread};
use crate::mode::Mode;
use crate::row::{client, cluster_ip, load_balancer, node, node_port, outside, outside_as, row};
use crate::testbed::{Setup, Testbed};
use crate::tools;

const WEB: [&str; 3] = ["a", "b", "c"];

/// Returns a Service that an API server would reject: `recent` does not accept zero seconds.
fn bad(timeout: u32) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: bad}}, spec: {{clusterIP: 10.96.0.66, selector: {{app: web}}, \
         ports: [{{port: 80, targetPort: 8080}}], sessionAffinity: ClientIP, \
         sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {timeout}}}}}}}}}"
    )
}

/// Returns a Service that claims a load balancer address for some sources.
fn claims(name: &str, ranges: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, \
         status: {{loadBalancer: {{ingress: [{{ip: 203.0.113.77}}]}}}}, spec: {{type: LoadBalancer, \
         selector: {{app: web}}, ports: [{{port: 8088, targetPort: 8080}}], loadBalancerSourceRanges: [{ranges}]}}}}"
    )
}

/// Two Services claim the same address and port for overlapping sources, which the kernel rejects within one set. The
/// first by name gets the address; the other is served at all its other addresses.
#[test]
#[rustfmt::skip]
fn an_address_claimed_by_two_services_belongs_to_the_first_by_nftables() {
    let mut testbed = Setup::new("web.yaml").mode(Mode::Nftables).up();
    testbed.apply(&claims("bad", "198.51.100.64/26"));
    testbed.check(&[
        row("it has the address while it is the only claimant", outside_as(&["198.51.100.100"]), load_balancer("bad", 8088).v4(), spread(&WEB)),
        row("for its sources", outside(), load_balancer("bad", 8088).v4(), lost()),
    ]);
    testbed.apply(&claims("aaa", "198.51.100.0/25"));
    let both = [
        row("the first Service has the address now", outside(), load_balancer("aaa", 8088).v4(), spread(&WEB).masqueraded_by(1)),
        row("for its sources", outside_as(&["198.51.100.200"]), load_balancer("aaa", 8088).v4(), lost()),
        row("the other Service has its cluster IP", client(1), cluster_ip("bad", 8088).v4(), spread(&WEB).kept()),
        row("other Services are served", client(1), cluster_ip("web", 80), spread(&WEB).kept()),
    ];
    testbed.check(&both);
    testbed.lab.stop_daemon("node-1").unwrap();
    testbed.nft("node-1", &["flush", "ruleset"]);
    testbed.lab.start_daemon("node-1").unwrap();
    testbed.synced();
    testbed.check(&both);
    testbed.lab.delete(&portcullis_lab::ObjectRef::new("Service", "default", "aaa")).unwrap();
    testbed.synced();
    testbed.check(&[
        row("it has the address again", outside_as(&["198.51.100.100"]), load_balancer("bad", 8088).v4(), spread(&WEB)),
        row("for its own sources again", outside(), load_balancer("bad", 8088).v4(), lost()),
    ]);
    assert_eq!(testbed.metric("node-1", "portcullis_service_sync_errors", ""), 0.0);
}

#[rustfmt::skip]
pub(crate) fn a_rejected_service_is_isolated(mode: Mode) {
    let mut testbed = Setup::new("web.yaml").mode(mode).up();
    let others = [
        row("other Services are served", client(1), cluster_ip("web", 80), spread(&WEB).kept()),
        row("other node ports are served", outside(), node_port(1, "web", 80), spread(&WEB).masqueraded_by(1)),
        row("the rejected one is not served", client(1), cluster_ip("bad", 80).v4(), lost()),
    ];
    testbed.apply(&bad(0));
    assert_eq!(reported(&testbed), 1.0);
    testbed.check(&others);
    many_isolated_services_fail_the_health_check(&mut testbed);

    // Changes of other Services and a restart with a first sync.
    testbed.lab.set_ready("b", false).unwrap();
    testbed.lab.set_ready("c", false).unwrap();
    testbed.synced();
    testbed.check(&[row("changes of other Services are applied", client(1), cluster_ip("web", 80), only("a").kept())]);
    testbed.lab.set_ready("b", true).unwrap();
    testbed.lab.set_ready("c", true).unwrap();
    testbed.synced();
    testbed.lab.stop_daemon("node-1").unwrap();
    for table in ["nat", "filter"] {
        testbed.iptables("node-1", &["-t", table, "-F"]);
        testbed.iptables("node-1", &["-t", table, "-X"]);
    }
    testbed.lab.start_daemon("node-1").unwrap();
    testbed.synced();
    assert_eq!(reported(&testbed), 1.0);
    testbed.check(&others);

    testbed.apply(&bad(60));
    assert_eq!(reported(&testbed), 0.0);
    // Probe from clients that have not tried before: conntrack keeps an unreplied connection for two minutes, and a
    // connection from the same port would follow it.
    testbed.check(&[
        row("it is served once it is fixed", node(1), cluster_ip("bad", 80).v4(), one_of(&WEB)),
        row("it is served once it is fixed on node-2", client(2), cluster_ip("bad", 80).v4(), one_of(&WEB)),
    ]);

    // A second failure, so that previously good rules are removed.
    testbed.apply(&bad(0));
    assert_eq!(reported(&testbed), 1.0);
    testbed.lab.delete(&portcullis_lab::ObjectRef::new("Service", "default", "bad")).unwrap();
    testbed.synced();
    assert_eq!(reported(&testbed), 0.0);
    testbed.check(&[row("other Services are served", client(1), cluster_ip("web", 80), spread(&WEB).kept())]);
}

/// Only `bad` is isolated before and after.
fn many_isolated_services_fail_the_health_check(testbed: &mut Testbed) {
    let netns = testbed.lab.netns(&Vantage::node("node-1")).unwrap();
    let get = |path| tools::http_get(&netns, "127.0.0.1:10256", path).unwrap();
    let answer = get("/healthz");
    assert!(answer.contains(" 200 ") && answer.contains("Services: 1 of "), "{answer}");
    let more = ["bad-1", "bad-2", "bad-3"];
    for (last, name) in (67..).zip(more) {
        testbed.apply(
            &bad(0).replace("name: bad", &format!("name: {name}")).replace("0.66", &format!("0.{last}")),
        );
    }
    let answer = get("/healthz");
    assert!(answer.contains(" 503 ") && answer.contains("Services: 4 of "), "{answer}");
    assert!(answer.contains("default/bad, default/bad-1, default/bad-2 and 1 more"), "{answer}");
    assert!(get("/livez").contains(" 200 "), "a restart cannot help");
    for name in more {
        testbed.lab.delete(&portcullis_lab::ObjectRef::new("Service", "default", name)).unwrap();
    }
    testbed.synced();
    assert!(get("/healthz").contains(" 200 "));
}

/// Returns the metric of rejected Services for `bad` on node-1.
fn reported(testbed: &Testbed) -> f64 {
    testbed.metric("node-1", "portcullis_service_sync_errors", "service_name=\"bad\"")
}
