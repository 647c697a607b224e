//! A Service that the tool refuses: it alone is not served, and everybody is told.

use portcullis_lab::Vantage;

use crate::bed::{Bed, Setup};
use crate::expectation::{lost, one_of, only, spread};
use crate::mode::Mode;
use crate::row::{client, cluster_ip, load_balancer, node, node_port, outside, outside_as, row};
use crate::tools::{self, Flavour};

const WEB: [&str; 3] = ["a", "b", "c"];

/// A Service that no API server would take, since no tool would: `recent` does not count zero seconds.
fn bad(timeout: u32) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: bad}}, spec: {{clusterIP: 10.96.0.66, selector: {{app: web}}, \
         ports: [{{port: 80, targetPort: 8080}}], sessionAffinity: ClientIP, \
         sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {timeout}}}}}}}}}"
    )
}

#[test]
fn a_refused_service_is_isolated_by_the_nft_tool() {
    a_refused_service_is_isolated(Flavour::Nft);
}

#[test]
fn a_refused_service_is_isolated_by_the_legacy_tool() {
    a_refused_service_is_isolated(Flavour::Legacy);
}

/// Claims an address of a load balancer for some sources.
fn claims(name: &str, ranges: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, \
         status: {{loadBalancer: {{ingress: [{{ip: 203.0.113.77}}]}}}}, spec: {{type: LoadBalancer, \
         selector: {{app: web}}, ports: [{{port: 8088, targetPort: 8080}}], loadBalancerSourceRanges: [{ranges}]}}}}"
    )
}

/// Two Services claim the same address and port, for sources that overlap: the kernel takes no such ranges in one set. The
/// first by name has it, and the other is served at all else that it has.
#[test]
#[rustfmt::skip]
fn an_address_that_two_claim_is_the_first_one_s_by_nftables() {
    let mut bed = Setup::of("web.yaml").mode(Mode::Nftables).up();
    bed.apply(&claims("bad", "198.51.100.64/26"));
    bed.check(&[
        row("it has the address while nobody else claims it", outside_as(&["198.51.100.100"]), load_balancer("bad", 8088).v4(), spread(&WEB)),
        row("for its sources", outside(), load_balancer("bad", 8088).v4(), lost()),
    ]);
    bed.apply(&claims("aaa", "198.51.100.0/25"));
    let both = [
        row("the first has it now", outside(), load_balancer("aaa", 8088).v4(), spread(&WEB).masqueraded_by(1)),
        row("for its sources", outside_as(&["198.51.100.200"]), load_balancer("aaa", 8088).v4(), lost()),
        row("the other has its cluster IP", client(1), cluster_ip("bad", 8088).v4(), spread(&WEB).kept()),
        row("others are served", client(1), cluster_ip("web", 80), spread(&WEB).kept()),
    ];
    bed.check(&both);
    bed.lab.stop_daemon("node-1").unwrap();
    bed.nft("node-1", &["flush", "ruleset"]);
    bed.lab.start_daemon("node-1").unwrap();
    bed.synced();
    bed.check(&both);
    bed.lab.delete(&portcullis_lab::ObjectRef::new("Service", "default", "aaa")).unwrap();
    bed.synced();
    bed.check(&[
        row("it has it again", outside_as(&["198.51.100.100"]), load_balancer("bad", 8088).v4(), spread(&WEB)),
        row("for its own sources again", outside(), load_balancer("bad", 8088).v4(), lost()),
    ]);
    assert_eq!(bed.metric("node-1", "portcullis_service_sync_errors", ""), 0.0);
}

#[rustfmt::skip]
fn a_refused_service_is_isolated(flavour: Flavour) {
    let mut bed = Setup::of("web.yaml").flavour(flavour).up();
    let others = [
        row("the others are served", client(1), cluster_ip("web", 80), spread(&WEB).kept()),
        row("their node ports, too", outside(), node_port(1, "web", 80), spread(&WEB).masqueraded_by(1)),
        row("the refused one is not", client(1), cluster_ip("bad", 80).v4(), lost()),
    ];
    bed.apply(&bad(0));
    assert_eq!(reported(&bed), 1.0);
    bed.check(&others);
    a_few_fail_no_health_check_and_more_do(&mut bed);

    // The world goes on: changes of others, a new daemon that meets it at its cold start.
    bed.lab.set_ready("b", false).unwrap();
    bed.lab.set_ready("c", false).unwrap();
    bed.synced();
    bed.check(&[row("changes of others are followed", client(1), cluster_ip("web", 80), only("a").kept())]);
    bed.lab.set_ready("b", true).unwrap();
    bed.lab.set_ready("c", true).unwrap();
    bed.synced();
    bed.lab.stop_daemon("node-1").unwrap();
    for table in ["nat", "filter"] {
        bed.iptables("node-1", &["-t", table, "-F"]);
        bed.iptables("node-1", &["-t", table, "-X"]);
    }
    bed.lab.start_daemon("node-1").unwrap();
    bed.synced();
    assert_eq!(reported(&bed), 1.0);
    bed.check(&others);

    bed.apply(&bad(60));
    assert_eq!(reported(&bed), 0.0);
    // From places that have not tried before: what a client sent into the void is tracked for two minutes, and a port
    // that it uses again leads there.
    bed.check(&[
        row("it is served once it is mended", node(1), cluster_ip("bad", 80).v4(), one_of(&WEB)),
        row("it is served once it is mended on node-2", client(2), cluster_ip("bad", 80).v4(), one_of(&WEB)),
    ]);

    // And again, so that what was good before does not linger.
    bed.apply(&bad(0));
    assert_eq!(reported(&bed), 1.0);
    bed.lab.delete(&portcullis_lab::ObjectRef::new("Service", "default", "bad")).unwrap();
    bed.synced();
    assert_eq!(reported(&bed), 0.0);
    bed.check(&[row("the others are served", client(1), cluster_ip("web", 80), spread(&WEB).kept())]);
}

/// Only `bad` is isolated before and after.
fn a_few_fail_no_health_check_and_more_do(bed: &mut Bed) {
    let netns = bed.lab.netns(&Vantage::node("node-1")).unwrap();
    let get = |path| tools::http_get(&netns, "127.0.0.1:10256", path).unwrap();
    let answer = get("/healthz");
    assert!(answer.contains(" 200 ") && answer.contains("Services: 1 of "), "{answer}");
    let more = ["bad-1", "bad-2", "bad-3"];
    for (last, name) in (67..).zip(more) {
        bed.apply(
            &bad(0).replace("name: bad", &format!("name: {name}")).replace("0.66", &format!("0.{last}")),
        );
    }
    let answer = get("/healthz");
    assert!(answer.contains(" 503 ") && answer.contains("Services: 4 of "), "{answer}");
    assert!(answer.contains("default/bad, default/bad-1, default/bad-2 and 1 more"), "{answer}");
    assert!(get("/livez").contains(" 200 "), "a restart cannot help");
    for name in more {
        bed.lab.delete(&portcullis_lab::ObjectRef::new("Service", "default", name)).unwrap();
    }
    bed.synced();
    assert!(get("/healthz").contains(" 200 "));
}

/// Whether the Service is reported as refused on node-1.
fn reported(bed: &Bed) -> f64 {
    bed.metric("node-1", "portcullis_service_sync_errors", "service_name=\"bad\"")
}
