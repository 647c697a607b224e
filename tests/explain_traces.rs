//! Comparison of `explain` with the rules of iptables mode: connections from a pod, from the node and from an external client
//! to each address of each Service, in every recorded state.

mod services;
mod trace;

use std::collections::BTreeSet;
use std::net::IpAddr;

use portcullis::commands::explain;
use portcullis::config::{Explain, OutputFormat, ProxyMode};
use portcullis_cluster::desired::{Desired, ServicePort};
use portcullis_cluster::{Event, Family, Index, Kind, Name, Object};
use portcullis_modes::DetectLocal;
use portcullis_modes::iptables::RuleSet;
use serde_json::{Value, json};
use services::{Case, bring, cases};
use trace::{Outcome, Packet, trace};

/// The addresses of a pod on the node that no case has.
const POD: [&str; 2] = ["10.244.1.200", "fd00:10:244:1::200"];
/// The addresses of an external client.
const EXTERNAL: [&str; 2] = ["198.51.100.7", "2001:db8:99::7"];

fn pod(node: Name) -> Object {
    let ips: Vec<Value> = POD.iter().map(|ip| json!({"ip": ip})).collect();
    let pod = json!({
        "metadata": {"name": "client", "namespace": "explain"},
        "spec": {"nodeName": node.as_str()},
        "status": {"podIPs": ips},
    });
    Object::parse(Kind::Pod, pod).expect("a pod").object
}

/// A client, as the value of `--from` and as the rules see it.
struct Client {
    from: String,
    address: IpAddr,
    is_node: bool,
    interface: Option<String>,
}

fn clients(case: &Case, index: &Index, family: Family) -> Vec<Client> {
    let of = |texts: [&str; 2]| -> IpAddr {
        texts[usize::from(family == Family::V6)].parse().expect("an address")
    };
    let bridge = match case.facts(index).0.detect_local {
        DetectLocal::BridgeInterface(name) => name.as_str().to_owned(),
        DetectLocal::InterfaceNamePrefix(prefix) => format!("{}1", prefix.as_str()),
        DetectLocal::Cidrs(_) => "cni0".to_owned(),
    };
    let known = index.node(&case.node());
    let own = known.and_then(|node| node.ips().find(|ip| Family::from_address(*ip) == family));
    let mut clients = vec![
        Client { from: "explain/client".into(), address: of(POD), is_node: false, interface: Some(bridge) },
        Client {
            from: of(EXTERNAL).to_string(),
            address: of(EXTERNAL),
            is_node: false,
            interface: Some("eth0".into()),
        },
    ];
    clients.extend(own.map(|address| Client {
        from: format!("node/{}", case.node()),
        address,
        is_node: true,
        interface: None,
    }));
    clients
}

/// Returns all addresses and ports of a Service port on the node.
fn targets(case: &Case, index: &Index, port: &ServicePort) -> Vec<(IpAddr, u16)> {
    let number = port.port.get();
    let mut targets: Vec<_> = port.cluster_ip.map(|ip| (ip, number)).into_iter().collect();
    targets.extend(port.external_ips.iter().chain(&port.load_balancer_vips).map(|ip| (*ip, number)));
    let own = index.node(&case.node()).into_iter().flat_map(|node| node.ips());
    let own = own.filter(|ip| Family::from_address(*ip) == port.family);
    targets.extend(own.filter_map(|ip| port.node_port.map(|node_port| (ip, node_port.get()))));
    targets
}

fn explain(case: &Case, index: &Index, client: &Client, to: (IpAddr, u16), port: &ServicePort) -> Outcome {
    let protocol = port.name.protocol;
    let request = Explain {
        from: client.from.clone(),
        to: format!("{}/{protocol}", std::net::SocketAddr::from(to)),
        node: Some(case.node().to_string()),
        output: OutputFormat::Json,
        ..Explain::default()
    };
    let mut out = Vec::new();
    explain::explain_index(&case.config, index, &request, &mut out)
        .unwrap_or_else(|error| panic!("{}: {request:?}: {error}", case.name));
    let response: Value = serde_json::from_slice(&out).expect("JSON");
    let connection = &response["connections"][0];
    match connection["noRoute"]["kind"].as_str() {
        Some("rejected") => return Outcome::Rejected,
        Some("dropped") => return Outcome::Dropped,
        Some("notServed") => return Outcome::NotServed,
        _ => {}
    }
    let paths = connection["paths"].as_array().expect("paths");
    let endpoints: BTreeSet<String> =
        paths.iter().map(|path| path["to"].as_str().expect("an address").to_owned()).collect();
    Outcome::Forwarded { endpoints, masqueraded: connection["service"]["source"] == "masqueraded" }
}

#[test]
fn explanations_match_the_rules() {
    let mut compared = 0;
    for case in cases(ProxyMode::Iptables) {
        let mut index = Index::new();
        for (step, state) in case.states().iter().enumerate() {
            bring(&mut index, state);
            index.handle(Event::Applied(pod(case.node())));
            let (options, host) = case.facts(&index);
            let local: Vec<IpAddr> = case.host.addresses().collect();
            let desired = Desired::from_index(&index, case.node());
            for family in Family::BOTH {
                let rules = RuleSet::render(&desired, family, &options, &host);
                for port in desired.ports().filter(|port| port.family == family) {
                    for (to, number) in targets(&case, &index, port) {
                        for client in clients(&case, &index, family) {
                            let packet = Packet {
                                from: client.address,
                                from_local: client.is_node,
                                to,
                                to_local: local.contains(&to),
                                protocol: port.name.protocol.as_str(),
                                port: number,
                                interface: client.interface.clone(),
                            };
                            let traced = trace(&rules, &packet);
                            let explained = explain(&case, &index, &client, (to, number), port);
                            assert_eq!(explained, traced, "{} step {}: {packet:?}", case.name, step + 1);
                            compared += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(compared > 1_000, "only {compared} connections compared");
}
