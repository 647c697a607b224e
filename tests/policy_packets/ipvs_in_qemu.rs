//! Policies beside IPVS and with SCTP, in QEMU: IPVS does DNAT in later hooks than the other modes.

use portcullis_lab::{EchoPort, Protocol};
use portcullis_machines::qemu;

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
        cluster.lab.delete(&portcullis_lab::ObjectRef::new("NetworkPolicy", "x", "b")).unwrap();
        cluster.wait_for(
            "after the deletion of a policy",
            "z/b → service/x/s-x-b 80/tcp allow\n y/b → x/c 80/tcp deny",
        );
    });
}
