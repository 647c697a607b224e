//! Effects of changes on open connections and flows: those to removed endpoints move, all others stay.

use portcullis_lab::{EchoClient, LabObject, ObjectRef, ProbeOutcome, Protocol};

use crate::mode::Mode;
use crate::row::{Origin, Target, client, cluster_ip, external_ip, load_balancer, node, node_port, outside};
use crate::testbed::{Setup, Testbed};

/// Echo clients of every kind of frontend, four each.
struct EchoClients(Vec<(String, EchoClient)>);

impl EchoClients {
    fn open(testbed: &Testbed, protocol: Protocol) -> Self {
        let of = |target: Target| if protocol == Protocol::Udp { target.udp() } else { target };
        let port = if protocol == Protocol::Udp { 53 } else { 80 };
        let paths: [(Origin, Target); 6] = [
            (client(1), of(cluster_ip("web", port))),
            (client(2), of(cluster_ip("web", port))),
            (node(1), of(cluster_ip("web", port))),
            (outside(), of(node_port(1, "web", port))),
            (outside(), of(load_balancer("web", port))),
            (outside(), of(external_ip("web", port))),
        ];
        let mut opened = Vec::new();
        for (from, to) in paths {
            for address in to.addresses(testbed.lab.plan(), testbed.families) {
                for _ in 0..4 {
                    let name = format!("{protocol} {} -> {address}", from.vantage);
                    opened.push((name, testbed.from(from.clone()).open(protocol, address).unwrap()));
                }
            }
        }
        Self(opened)
    }

    /// Does one exchange with every client; returns the outcomes in order.
    fn exchange(&mut self) -> Vec<ProbeOutcome> {
        self.0.iter_mut().map(|(_, client)| client.exchange("word")).collect()
    }

    /// Returns the responder of every client; all must get a response.
    fn responders(&mut self, when: &str) -> Vec<String> {
        let outcomes = self.exchange();
        let named = self.0.iter().zip(outcomes);
        let answered = named.map(|((name, _), outcome)| {
            outcome.responder().map(str::to_owned).unwrap_or_else(|| panic!("{name} {when}: {outcome}"))
        });
        answered.collect()
    }
}

/// Asserts that clients of removed pods have moved to another pod and that all others have stayed.
fn assert_moved(before: &[String], after: &[String], gone: &[&str], when: &str) {
    let is_gone = |by: &String| gone.iter().any(|gone| *by == format!("default/{gone}"));
    assert!(before.iter().any(is_gone), "{when}: some of {} were routed to {gone:?}", before.len());
    for (before, after) in before.iter().zip(after) {
        if is_gone(before) {
            assert!(!is_gone(after), "{when}: still at {after}");
        } else {
            assert_eq!(before, after, "{when}: its endpoint did not change");
        }
    }
}

fn object(kind: &str, name: &str) -> ObjectRef {
    ObjectRef::new(kind, "default", name)
}

pub(crate) fn udp_flows_follow_endpoints(mode: Mode) {
    let mut testbed = Setup::new("web.yaml").mode(mode).up();
    let mut udp = EchoClients::open(&testbed, Protocol::Udp);
    let first = udp.responders("at first");
    assert_eq!(udp.responders("again"), first, "flows stay at their endpoint");

    testbed.lab.set_ready("b", false).unwrap();
    testbed.synced();
    let second = udp.responders("after b became unready");
    assert_moved(&first, &second, &["b"], "unready");

    let pod_c = testbed.lab.cluster().get(&object("Pod", "c")).unwrap().clone();
    testbed.lab.delete(&object("Pod", "c")).unwrap();
    testbed.synced();
    let third = udp.responders("after c was deleted");
    assert_moved(&second, &third, &["c"], "deleted");

    // Without endpoints, flows are refused rather than lost. With an endpoint again, the same flows work.
    testbed.lab.set_ready("a", false).unwrap();
    testbed.synced();
    for (name, client) in &mut udp.0 {
        assert_eq!(client.exchange("word"), ProbeOutcome::Refused, "{name} with no endpoint");
    }
    testbed.lab.apply([pod_c]).unwrap();
    testbed.synced();
    let back = udp.responders("after c came back");
    assert!(back.iter().all(|by| by == "default/c"), "{back:?}");
    testbed.lab.set_ready("a", true).unwrap();
    testbed.lab.set_ready("b", true).unwrap();
    testbed.synced();
    assert_eq!(udp.responders("with a and b back"), back, "new endpoints move no flows");

    service_is_deleted_and_created_again(&mut testbed, &mut udp);
}

/// Clients continue sending while the Service does not exist; the resulting conntrack entries must be removed too.
fn service_is_deleted_and_created_again(testbed: &mut Testbed, udp: &mut EchoClients) {
    let service: LabObject = testbed.lab.cluster().get(&object("Service", "web")).unwrap().clone();
    testbed.lab.delete(&object("Service", "web")).unwrap();
    testbed.synced();
    for (_, client) in &mut udp.0 {
        client.set_timeout(std::time::Duration::from_millis(20)).unwrap();
    }
    let outcomes = udp.exchange();
    for ((name, _), outcome) in udp.0.iter().zip(&outcomes) {
        assert!(outcome.responder().is_none(), "{name} without its Service: {outcome}");
    }
    testbed.lab.apply([service]).unwrap();
    testbed.synced();
    for (_, client) in &mut udp.0 {
        client.set_timeout(std::time::Duration::from_secs(5)).unwrap();
    }
    let again = udp.responders("after the Service was made again");
    assert!(again.iter().any(|by| *by != again[0]), "all pods serve again: {again:?}");
}

pub(crate) fn tcp_connections_survive_unrelated_changes(mode: Mode) {
    let mut testbed = Setup::new("web.yaml").mode(mode).up();
    let mut tcp = EchoClients::open(&testbed, Protocol::Tcp);
    let first = tcp.responders("at first");
    let living: Vec<&str> = vec!["default/a", "default/b"];
    // Connections to c end when it is deleted below.
    tcp.0 = tcp
        .0
        .into_iter()
        .zip(&first)
        .filter(|(_, by)| living.contains(&by.as_str()))
        .map(|(c, _)| c)
        .collect();
    let first: Vec<String> = first.into_iter().filter(|by| living.contains(&by.as_str())).collect();
    assert!(living.iter().all(|pod| first.iter().any(|by| by == pod)), "{first:?}");

    type Change = (&'static str, fn(&mut Testbed));
    let changes: [Change; 10] = [
        ("another endpoint becomes unready", |testbed| testbed.lab.set_ready("c", false).unwrap()),
        ("another endpoint is deleted", |testbed| testbed.lab.delete(&object("Pod", "c")).unwrap()),
        ("an endpoint is added", |testbed| testbed.lab.apply_text(POD).unwrap()),
        ("another Service is added", |testbed| testbed.lab.apply_text(OTHER).unwrap()),
        ("another Service is deleted", |testbed| testbed.lab.delete(&object("Service", "other")).unwrap()),
        ("session affinity is enabled", |testbed| {
            edit(testbed, |spec| spec["sessionAffinity"] = "ClientIP".into())
        }),
        ("a port is added to its Service", |testbed| {
            edit(testbed, |spec| {
                let port = serde_json::json!({"name": "more", "port": 81, "targetPort": 8080});
                spec["ports"].as_array_mut().unwrap().push(port);
            });
        }),
        ("an external IP is added to its Service", |testbed| {
            edit(testbed, |spec| spec["externalIPs"].as_array_mut().unwrap().push("192.0.2.77".into()));
        }),
        ("its own endpoint becomes unready and still responds", |testbed| {
            testbed.lab.set_ready("a", false).unwrap()
        }),
        ("its own endpoint terminates and still responds", |testbed| testbed.lab.terminate("b").unwrap()),
    ];
    for (what, change) in changes {
        change(&mut testbed);
        testbed.synced();
        assert_eq!(tcp.responders(what), first, "{what}");
    }
}

const POD: &str =
    "{apiVersion: v1, kind: Pod, metadata: {name: d, labels: {app: web}}, spec: {nodeName: node-1}}";
const OTHER: &str = "{apiVersion: v1, kind: Service, metadata: {name: other}, spec: {selector: {app: web}, ports: [{port: 99, targetPort: 8080}]}}";

/// Edits the spec of the Service `web`.
fn edit(testbed: &mut Testbed, change: impl FnOnce(&mut serde_json::Value)) {
    let LabObject::Service(service) = testbed.lab.cluster().get(&object("Service", "web")).unwrap() else {
        unreachable!()
    };
    let mut value = serde_json::to_value(service).unwrap();
    change(&mut value["spec"]);
    testbed.lab.apply([LabObject::from_value(value).unwrap()]).unwrap();
}
