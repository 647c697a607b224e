//! A packet that a policy drops, in a lab with pods.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_lab::{
    ClusterObjects, DaemonSpec, EchoPort, Family, Lab, LabOptions, MatrixPeer, PlanOptions, Vantage,
};

use crate::browser::Browser;
use crate::daemon::PATIENCE;
use crate::site::{ENABLED, Site};

/// Only pods of namespace x connect to x/b.
const POLICY: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: inwards, namespace: x}, spec: {
  podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{podSelector: {}}]}]}}";

#[test]
fn dropped_packet() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let objects = ClusterObjects::read(fixtures.join("network-policy/cluster.yaml")).unwrap();
    let plan = PlanOptions {
        clients: false,
        placeholder_pods: false,
        echo_ports: [EchoPort::udp(80)].into(),
        ..PlanOptions::default()
    };
    let arguments = ["--mode=nftables", "--network-policy", "--conntrack-max-per-core=0", ENABLED];
    let daemon = DaemonSpec {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_portcullis")),
        args: arguments.map(str::to_owned).to_vec(),
        ..DaemonSpec::default()
    };
    let mut lab = Lab::up(objects, LabOptions { plan, daemon: Some(daemon) }).unwrap();
    lab.apply_text(POLICY).unwrap();
    lab.wait_synced(PATIENCE).unwrap_or_else(|error| panic!("{error}"));

    let [from, to] = ["y/b", "x/b"].map(|name| MatrixPeer::pod(lab.plan(), name).unwrap());
    let prober = lab.prober(from.vantage().unwrap().clone()).unwrap().timeout(Duration::from_millis(200));
    let outcome = prober.udp(SocketAddr::new(to.address_of(Family::V4).unwrap(), 80));
    assert_eq!(outcome.responder(), None, "the policy denies it");

    // The packet is dropped on the node of x/b.
    let netns = lab.netns(&Vantage::node("node-2")).unwrap();
    let mut site = Site { browser: Browser::start_with(netns.command("sh")) };
    let text = site.open("/policies");
    for part in ["Dropped packets", "x/inwards", "ingress"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let row = "[...document.querySelector('#drops').closest('section').querySelectorAll('tbody td')].map(cell => cell.innerText).slice(0, 2)";
    assert_eq!(site.browser.evaluate(row), serde_json::json!(["ingress", "1"]), "{text}");
    site.picture("status-page-drops");
    let text = site.open("/policies/namespace?namespace=x&port=80/udp");
    assert!(text.contains("inwards") && text.contains("80/udp"), "{text}");
    let text = site.open("/explain?from=y/b&to=x/b&port=80/udp");
    assert!(text.contains("The connection does not arrive") && text.contains("x/inwards"), "{text}");
    let text = site.open("/");
    assert!(text.contains("Dropped packets\n"), "{text}");
}
