//! What changes do to conversations: those to endpoints that are gone move, all others stay.

use portcullis_lab::{Conversation, Object, ObjectRef, Outcome, Protocol, uml};

use crate::bed::{Bed, Setup};
use crate::mode::Mode;
use crate::row::{Origin, Target, client, cluster_ip, external_ip, load_balancer, node, node_port, outside};
use crate::tools::Flavour;

/// Conversations over every kind of address, four each.
struct Conversations(Vec<(String, Conversation)>);

impl Conversations {
    fn open(bed: &Bed, protocol: Protocol) -> Self {
        let of = |target: Target| if protocol == Protocol::Udp { target.udp() } else { target };
        let port = if protocol == Protocol::Udp { 53 } else { 80 };
        let ways: [(Origin, Target); 6] = [
            (client(1), of(cluster_ip("web", port))),
            (client(2), of(cluster_ip("web", port))),
            (node(1), of(cluster_ip("web", port))),
            (outside(), of(node_port(1, "web", port))),
            (outside(), of(load_balancer("web", port))),
            (outside(), of(external_ip("web", port))),
        ];
        let mut opened = Vec::new();
        for (from, to) in ways {
            for address in to.addresses(bed.lab.plan(), bed.families) {
                for _ in 0..4 {
                    let name = format!("{protocol} {} -> {address}", from.vantage);
                    opened.push((name, bed.from(from.clone()).open(protocol, address).unwrap()));
                }
            }
        }
        Self(opened)
    }

    /// Asks in every conversation; the outcomes in order.
    fn ask(&mut self) -> Vec<Outcome> {
        self.0.iter_mut().map(|(_, conversation)| conversation.ask("word")).collect()
    }

    /// Who answers in every conversation, all of which must be answered.
    fn answerers(&mut self, when: &str) -> Vec<String> {
        let outcomes = self.ask();
        let named = self.0.iter().zip(outcomes);
        let answered = named.map(|((name, _), outcome)| {
            outcome.by().map(str::to_owned).unwrap_or_else(|| panic!("{name} {when}: {outcome}"))
        });
        answered.collect()
    }
}

/// Conversations whose pod is gone have moved to another one; all others have stayed where they were.
fn assert_moved(before: &[String], after: &[String], gone: &[&str], when: &str) {
    let is_gone = |by: &String| gone.iter().any(|gone| *by == format!("default/{gone}"));
    assert!(before.iter().any(is_gone), "{when}: some of {} met {gone:?}", before.len());
    for (before, after) in before.iter().zip(after) {
        if is_gone(before) {
            assert!(!is_gone(after), "{when}: still at {after}");
        } else {
            assert_eq!(before, after, "{when}: its endpoint was not touched");
        }
    }
}

fn object(kind: &str, name: &str) -> ObjectRef {
    ObjectRef::new(kind, "default", name)
}

#[test]
fn udp_follows_by_the_nft_tool() {
    udp_follows(Mode::Iptables(Flavour::Nft));
}

#[test]
fn udp_follows_by_the_legacy_tool() {
    udp_follows(Mode::Iptables(Flavour::Legacy));
}

#[test]
fn udp_follows_by_ipvs() {
    uml::inside(|| udp_follows(Mode::Ipvs));
}

#[test]
fn udp_follows_by_nftables() {
    udp_follows(Mode::Nftables);
}

fn udp_follows(mode: Mode) {
    let mut bed = Setup::of("web.yaml").mode(mode).up();
    let mut udp = Conversations::open(&bed, Protocol::Udp);
    let first = udp.answerers("at first");
    assert_eq!(udp.answerers("again"), first, "a flow stays where it is");

    bed.lab.set_ready("b", false).unwrap();
    bed.synced();
    let second = udp.answerers("after b became unready");
    assert_moved(&first, &second, &["b"], "unready");

    let pod_c = bed.lab.cluster().get(&object("Pod", "c")).unwrap().clone();
    bed.lab.delete(&object("Pod", "c")).unwrap();
    bed.synced();
    let third = udp.answerers("after c was deleted");
    assert_moved(&second, &third, &["c"], "deleted");

    // To zero: refused rather than lost. And back, in the same conversations.
    bed.lab.set_ready("a", false).unwrap();
    bed.synced();
    for (name, conversation) in &mut udp.0 {
        assert_eq!(conversation.ask("word"), Outcome::Refused, "{name} with no endpoint");
    }
    bed.lab.apply([pod_c]).unwrap();
    bed.synced();
    let back = udp.answerers("after c came back");
    assert!(back.iter().all(|by| by == "default/c"), "{back:?}");
    bed.lab.set_ready("a", true).unwrap();
    bed.lab.set_ready("b", true).unwrap();
    bed.synced();
    assert_eq!(udp.answerers("with a and b back"), back, "endpoints that are new move nothing");

    service_deleted_and_made_again(&mut bed, &mut udp);
}

/// While the Service is away, clients go on sending: that must not stick either.
fn service_deleted_and_made_again(bed: &mut Bed, udp: &mut Conversations) {
    let service: Object = bed.lab.cluster().get(&object("Service", "web")).unwrap().clone();
    bed.lab.delete(&object("Service", "web")).unwrap();
    bed.synced();
    for (_, conversation) in &mut udp.0 {
        conversation.set_timeout(std::time::Duration::from_millis(20)).unwrap();
    }
    let outcomes = udp.ask();
    for ((name, _), outcome) in udp.0.iter().zip(&outcomes) {
        assert!(outcome.by().is_none(), "{name} without its Service: {outcome}");
    }
    bed.lab.apply([service]).unwrap();
    bed.synced();
    for (_, conversation) in &mut udp.0 {
        conversation.set_timeout(std::time::Duration::from_secs(5)).unwrap();
    }
    let again = udp.answerers("after the Service was made again");
    assert!(again.iter().any(|by| *by != again[0]), "all pods serve again: {again:?}");
}

#[test]
fn tcp_stays_by_iptables() {
    a_tcp_connection_survives_every_unrelated_change(Mode::Iptables(Flavour::Nft));
}

#[test]
fn tcp_stays_by_ipvs() {
    uml::inside(|| a_tcp_connection_survives_every_unrelated_change(Mode::Ipvs));
}

#[test]
fn tcp_stays_by_nftables() {
    a_tcp_connection_survives_every_unrelated_change(Mode::Nftables);
}

fn a_tcp_connection_survives_every_unrelated_change(mode: Mode) {
    let mut bed = Setup::of("web.yaml").mode(mode).up();
    let mut tcp = Conversations::open(&bed, Protocol::Tcp);
    let first = tcp.answerers("at first");
    let living: Vec<&str> = vec!["default/a", "default/b"];
    // Connections to c end when it is deleted, below.
    tcp.0 = tcp
        .0
        .into_iter()
        .zip(&first)
        .filter(|(_, by)| living.contains(&by.as_str()))
        .map(|(c, _)| c)
        .collect();
    let first: Vec<String> = first.into_iter().filter(|by| living.contains(&by.as_str())).collect();
    assert!(living.iter().all(|pod| first.iter().any(|by| by == pod)), "{first:?}");

    type Change = (&'static str, fn(&mut Bed));
    let changes: [Change; 10] = [
        ("another endpoint becomes unready", |bed| bed.lab.set_ready("c", false).unwrap()),
        ("another endpoint is deleted", |bed| bed.lab.delete(&object("Pod", "c")).unwrap()),
        ("an endpoint is added", |bed| bed.lab.apply_text(POD).unwrap()),
        ("another Service comes", |bed| bed.lab.apply_text(OTHER).unwrap()),
        ("another Service goes", |bed| bed.lab.delete(&object("Service", "other")).unwrap()),
        ("its Service gets affinity", |bed| edit(bed, |spec| spec["sessionAffinity"] = "ClientIP".into())),
        ("its Service gets a port", |bed| {
            edit(bed, |spec| {
                let port = serde_json::json!({"name": "more", "port": 81, "targetPort": 8080});
                spec["ports"].as_array_mut().unwrap().push(port);
            });
        }),
        ("its Service gets an external IP", |bed| {
            edit(bed, |spec| spec["externalIPs"].as_array_mut().unwrap().push("192.0.2.77".into()));
        }),
        ("its own endpoint becomes unready and still answers", |bed| bed.lab.set_ready("a", false).unwrap()),
        ("its own endpoint terminates and still answers", |bed| bed.lab.terminate("b").unwrap()),
    ];
    for (what, change) in changes {
        change(&mut bed);
        bed.synced();
        assert_eq!(tcp.answerers(what), first, "{what}");
    }
}

const POD: &str =
    "{apiVersion: v1, kind: Pod, metadata: {name: d, labels: {app: web}}, spec: {nodeName: node-1}}";
const OTHER: &str = "{apiVersion: v1, kind: Service, metadata: {name: other}, spec: {selector: {app: web}, ports: [{port: 99, targetPort: 8080}]}}";

/// Edits the spec of the Service `web`.
fn edit(bed: &mut Bed, change: impl FnOnce(&mut serde_json::Value)) {
    let Object::Service(service) = bed.lab.cluster().get(&object("Service", "web")).unwrap() else {
        unreachable!()
    };
    let mut value = serde_json::to_value(service).unwrap();
    change(&mut value["spec"]);
    bed.lab.apply([Object::from_value(value).unwrap()]).unwrap();
}
