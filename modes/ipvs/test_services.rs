//! Services for unit tests, and short forms of operations.

use std::collections::BTreeMap;

use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Event, Family, Index, IpvsScheduler, Kind, Name, NamespacedName, Object};
use serde_json::{Value, json};

use super::kernel::ServerChange;
use super::planner::Operation;
use super::programmed::{Ports, Programmed, Update};
use super::renderer::Renderer;
use crate::node_facts::NodeFacts;
use crate::options::Options;

/// A Service in short: its name, the last byte of its ClusterIP, those of its endpoints, which are on another node.
pub(super) type ShortService<'a> = (&'a str, u8, &'a [u8]);

/// Returns the state of a node that has programmed these Services.
pub(super) fn programmed(services: &[ShortService<'_>]) -> Programmed {
    let renderer =
        Renderer::new(Family::V4, IpvsScheduler::default(), &Options::default(), &NodeFacts::default());
    let excluded = ["10.99.0.0/16".parse().expect("a CIDR")];
    let mut programmed = Programmed::new(renderer, excluded.into());
    programmed.replace(None, ports(services));
    programmed
}

/// Returns the update from one list of Services to another.
pub(super) fn update(before: &[ShortService<'_>], after: &[ShortService<'_>]) -> Update {
    let (before, mut after) = (ports(before), ports(after));
    let mut services: Vec<(NamespacedName, Option<Ports>)> = Vec::new();
    for (name, before) in before {
        let after = after.remove(&name);
        if after.as_ref() != Some(&before) {
            services.push((name, after));
        }
    }
    services.extend(after.into_iter().map(|(name, ports)| (name, Some(ports))));
    Update { renderer: None, services }
}

/// Returns the ports of Services, as resolved from API objects.
fn ports(services: &[ShortService<'_>]) -> BTreeMap<NamespacedName, Ports> {
    let mut index = Index::new();
    let mut apply = |kind, object: Value| {
        let parsed = Object::parse(kind, object).expect("a valid object");
        index.handle(Event::Applied(parsed.object));
    };
    for (name, last, endpoints) in services {
        let metadata = json!({"name": name, "namespace": "ns"});
        let address = format!("10.96.0.{last}");
        let spec = json!({"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80}]});
        apply(Kind::Service, json!({"metadata": metadata, "spec": spec}));
        let labels = json!({"kubernetes.io/service-name": name});
        let endpoint = |last| json!({"addresses": [format!("10.244.0.{last}")], "nodeName": "node-b"});
        apply(
            Kind::EndpointSlice,
            json!({
                "metadata": {"name": name, "namespace": "ns", "labels": labels},
                "addressType": "IPv4",
                "ports": [{"port": 8080}],
                "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
            }),
        );
    }
    let desired = Desired::from_index(&index, Name::new("node-a"));
    desired.services().iter().map(|(name, ports)| (name.clone(), Ports::clone(ports))).collect()
}

/// Prints operations in short: `+ClusterIp`, `servers(+vs +1)`, `rules`, `-address`.
pub(super) fn print_operations(operations: &[Operation]) -> String {
    let print = |operation: &Operation| match operation {
        Operation::AddEntries(set, _) => format!("+{set:?}"),
        Operation::DeleteEntries(set, _) => format!("-{set:?}"),
        Operation::ChangeServers(changes) => format!("servers({})", print_changes(changes)),
        Operation::RestoreServers(changes) => format!("restore({})", print_changes(changes)),
        Operation::WriteRules(tables) => {
            let names: Vec<&str> = tables.iter().map(|table| table.as_str()).collect();
            format!("rules({})", names.join(" "))
        }
        Operation::AddAddresses(addresses) => format!("+addresses({})", addresses.len()),
        Operation::DeleteAddresses(addresses) => format!("-addresses({})", addresses.len()),
    };
    operations.iter().map(print).collect::<Vec<_>>().join(" ")
}

/// Prints changes in short: `+vs`, `~vs`, `-vs` for the virtual server, `+1`, `1=0`, `-1` for real servers.
pub(super) fn print_changes(changes: &[ServerChange]) -> String {
    let last = |address: std::net::IpAddr| address.to_string().rsplit('.').next().map(str::to_owned);
    let last = |address| last(address).unwrap_or_default();
    let print = |change: &ServerChange| match change {
        ServerChange::AddServer(..) => "+vs".to_owned(),
        ServerChange::SetServer(..) => "~vs".to_owned(),
        ServerChange::DeleteServer(_) => "-vs".to_owned(),
        ServerChange::AddRealServer(_, real) => format!("+{}", last(real.address)),
        ServerChange::SetRealServer(_, real) => format!("{}={}", last(real.address), real.weight),
        ServerChange::DeleteRealServer(_, address) => format!("-{}", last(address.ip())),
    };
    changes.iter().map(print).collect::<Vec<_>>().join(" ")
}
