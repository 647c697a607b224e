//! Policies beside IPVS and with SCTP, in QEMU: IPVS does DNAT in later hooks than the other modes.

use std::path::PathBuf;
use std::process::Command;

use portcullis_lab::{EchoPort, Protocol};
use portcullis_machines::qemu;
use serde_json::json;

use crate::daemons::wait_until;
use crate::observer::Observer;
use crate::test_cluster::{ClusterSetup, TestCluster};

/// x/b allows x/a by port number and y by port name; x/c allows a CIDR with exceptions; y/c may connect to x/b only.
const POLICIES: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: b, namespace: x}, spec: {
  podSelector: {matchLabels: {pod: b}}, ingress: [
  {from: [{podSelector: {matchLabels: {pod: a}}}], ports: [{port: 80}, {port: 80, protocol: SCTP}]},
  {from: [{namespaceSelector: {matchLabels: {ns: y}}}], ports: [{port: serve-81-udp, protocol: UDP}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: c, namespace: x}, spec: {
  podSelector: {matchLabels: {pod: c}}, ingress: [{from: [
  {ipBlock: {cidr: 10.244.1.0/24, except: [10.244.1.20/32]}}, {ipBlock: {cidr: 'fd00:10:244:1::/64', except: ['fd00:10:244:1::14/128']}}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: c, namespace: y}, spec: {
  podSelector: {matchLabels: {pod: c}}, policyTypes: [Egress], egress: [{to: [
  {namespaceSelector: {matchLabels: {ns: x}}, podSelector: {matchLabels: {pod: b}}}]}]}}";

/// Connections to pods, and to the same pods through Services.
const CONNECTIONS: &str = "
    x/a → x/b 80/tcp allow
    x/a → service/x/s-x-b 80/tcp allow
    x/a → service/x/s-x-b 80/sctp allow
    x/a → service/x/s-x-b 80/udp deny
    z/b → service/x/s-x-b 80/tcp deny
    z/b → x/b 80/sctp deny
    y/a → service/x/s-x-b 81/udp allow
    y/a → service/x/s-x-b 81/tcp deny
    x/b → service/x/s-x-b 81/tcp allow
    node/node-2 → service/x/s-x-b 81/tcp allow
    node/node-1 → x/b 81/tcp deny
    z/a → service/x/s-x-c 80/tcp allow
    z/a → x/c 80/sctp allow
    y/b → service/x/s-x-c 80/tcp deny
    z/b → x/c 80/udp deny
    y/c → service/x/s-x-b 81/udp allow
    y/c → service/x/s-x-b 80/udp deny
    y/c → service/z/s-z-a 80/tcp deny
    y/c → z/a 80/sctp deny
    y/c → node/node-2 80/tcp allow
    y/c → node/node-1 80/tcp deny
    z/c → service/y/s-y-c 80/tcp allow";

#[test]
fn policies_beside_ipvs_in_qemu() {
    qemu::inside(|| {
        assert!(Protocol::Sctp.is_supported(), "this kernel has SCTP sockets");
        let mut setup = ClusterSetup { mode: "ipvs", ..ClusterSetup::default() };
        setup.ports.insert(EchoPort { port: 80, protocol: Protocol::Sctp });
        let mut cluster: TestCluster = setup.up();
        cluster.apply(POLICIES);
        cluster.check("with IPVS", CONNECTIONS);
        drops_are_observed(&cluster);
        cluster.lab.delete(&portcullis_lab::ObjectRef::new("NetworkPolicy", "x", "b")).unwrap();
        cluster.wait_for(
            "after the deletion of a policy",
            "z/b → service/x/s-x-b 80/tcp allow\n y/b → x/c 80/tcp deny",
        );
    });
}

/// Observes a connection to a Service of IPVS that a policy of the endpoint drops: on the endpoint's node. The other node reports
/// that it does not drop such packets.
fn drops_are_observed(cluster: &TestCluster) {
    let observe = |node: &str| {
        let socket: PathBuf = cluster.lab.folder().join(format!("{node}.sock"));
        let arguments = ["--follow", "--to=x/c", "-o", "json"];
        Observer::spawn(Command::new(env!("CARGO_BIN_EXE_portcullis")), socket, &arguments)
    };
    let notice = observe("node-2").wait_for("Notice", |_| true);
    assert_eq!(
        notice["message"],
        "no pod x/c runs on this node (node-2): its ingress policies drop packets on node-1; here only egress policies of \
         sources do"
    );
    let observer = observe("node-1");
    wait_until("drops are logged", || cluster.table("node-1").contains("while drops are observed"));
    cluster.check(
        "while drops are observed",
        "y/b → service/x/s-x-c 80/tcp deny\n z/a → service/x/s-x-c 80/tcp allow",
    );
    for address in ["10.244.1.11", "fd00:10:244:1::b"] {
        let event = observer.wait_for("TrafficEvent", |event| event["destination"]["address"] == address);
        assert_eq!(
            (&event["verdict"], &event["direction"]),
            (&json!("dropped"), &json!("ingress")),
            "{event}"
        );
        assert_eq!(event["policies"], json!(["NetworkPolicy x/c"]), "{event}");
        assert_eq!(event["source"]["pod"], json!({"namespace": "y", "name": "b"}), "{event}");
        assert_eq!(event["destination"]["pod"], json!({"namespace": "x", "name": "c"}), "{event}");
        assert_eq!(event["frontend"]["service"], json!({"namespace": "x", "name": "s-x-c"}), "{event}");
    }
}
