//! The part of the status document about the pod network.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_podnet::addresses::AddressUsage;

use super::documents::{LimitedList, PodAddressesStatus, PodNetworkStatus, UnreachableNodeStatus};
use crate::config::PodNetwork;
use crate::control::{
    FinishedSync, Measurements, PodAddressSource, PodNetworkMeasurements, REJECTED_NODE, Status,
};
use crate::node_network::address_usage;

/// The largest number of unreachable nodes in the document.
const LISTED: usize = 100;

/// Returns the status of the pod network. `usage`: the use of addresses, if it could be read.
pub(super) fn status(
    settings: &PodNetwork,
    statuses: &[Status],
    usage: Option<Vec<AddressUsage>>,
) -> PodNetworkStatus {
    let last = last_sync(statuses);
    let measured = last.map(|(_, measurements)| measurements);
    let errors =
        last.into_iter().flat_map(|(sync, _)| sync.results.iter().filter_map(|result| result.error.as_ref()));
    PodNetworkStatus {
        mode: settings.mode.name().to_owned(),
        wiring: settings.wiring.name().to_owned(),
        masquerade: settings.masquerade,
        ready: measured.map(|measured| measured.is_ready),
        reason: errors.map(|error| error.message.clone()).next(),
        mtu: measured.and_then(|measured| measured.mtu),
        pod_cidrs: measured
            .map(|measured| measured.addresses.pod_cidrs.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        addresses: usage.map(|usage| usage.iter().map(addresses).collect()),
        nodes: measured.map(|measured| measured.nodes),
        unreachable_nodes: last.map_or_else(|| LimitedList::new([], LISTED), unreachable_nodes),
    }
}

/// Counts the addresses of this node's pods; `None` before the first sync, or if the records cannot be read.
pub(super) fn usage(source: Option<PodAddressSource>) -> Option<Vec<AddressUsage>> {
    source.and_then(|PodAddressSource { state_dir, pod_cidrs }| address_usage(&state_dir, &pod_cidrs).ok())
}

/// Returns where the use of addresses is read, as the last sync reported it.
pub(super) fn address_source(statuses: &[Status]) -> Option<PodAddressSource> {
    last_sync(statuses).map(|(_, measurements)| measurements.addresses.clone())
}

fn last_sync(statuses: &[Status]) -> Option<(&FinishedSync, &PodNetworkMeasurements)> {
    let syncs = statuses.iter().filter_map(|status| status.last_sync.as_deref());
    syncs.into_iter().find_map(|sync| match &sync.measurements {
        Measurements::PodNetwork(measurements) => Some((sync, measurements)),
        _ => None,
    })
}

fn addresses(usage: &AddressUsage) -> PodAddressesStatus {
    PodAddressesStatus {
        pod_cidr: usage.range.to_string(),
        held: usage.held,
        other_plugin: usage.elsewhere,
        free: u64::try_from(usage.free()).unwrap_or(u64::MAX),
    }
}

/// Returns the nodes with problems, and those of which the kernel rejects an object.
fn unreachable_nodes(
    (sync, measured): (&FinishedSync, &PodNetworkMeasurements),
) -> LimitedList<UnreachableNodeStatus> {
    let mut nodes: BTreeMap<&str, (BTreeSet<&str>, Vec<String>)> = BTreeMap::new();
    for (node, problem) in
        measured.problems.iter().flat_map(|(node, all)| all.iter().map(move |one| (node, one)))
    {
        let (reasons, texts) = nodes.entry(node.as_str()).or_default();
        reasons.insert(problem.reason());
        texts.push(problem.to_string());
    }
    for isolated in sync.results.iter().flat_map(|result| &result.isolated) {
        let (reasons, texts) = nodes.entry(&isolated.object.name.name).or_default();
        reasons.insert(REJECTED_NODE);
        texts.push(isolated.text.clone());
    }
    let nodes = nodes.into_iter().map(|(node, (reasons, texts))| UnreachableNodeStatus {
        node: node.to_owned(),
        reasons: reasons.into_iter().map(str::to_owned).collect(),
        text: texts.join("; "),
    });
    LimitedList::new(nodes, LISTED)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::time::Duration;

    use portcullis_cluster::{Kind, Name, NamespacedName, ObjectKey};
    use portcullis_modes::IsolationCause;
    use portcullis_podnet::node_routes::NodeProblem;
    use portcullis_podnet::{PodNetworkMode, Vxlan, Wiring};

    use super::*;
    use crate::control::{ControllerName, Declaration, IsolatedObject, RulesError, RulesResult};

    /// Returns the statuses of a daemon whose pod network had this sync.
    fn statuses(last_sync: Option<FinishedSync>) -> Vec<Status> {
        let declaration = |name| Declaration { name, rules: vec!["IPv4"], watches: Vec::new() };
        let label = "pod-network";
        let name = ControllerName { label, is_service_proxy: false, ..ControllerName::SERVICES };
        let pod_network = Status { last_sync: last_sync.map(Arc::new), ..Status::new(&declaration(name)) };
        vec![Status::new(&declaration(ControllerName::SERVICES)), pod_network]
    }

    fn settings() -> PodNetwork {
        PodNetwork {
            mode: PodNetworkMode::Vxlan,
            wiring: Wiring::Ptp,
            mtu: None,
            vxlan: Vxlan::default(),
            masquerade: false,
            masquerade_exclude_cidrs: Vec::new(),
            cni_bin_dir: "/nonexistent".into(),
            cni_conf_dir: "/nonexistent".into(),
            state_dir: "/nonexistent".into(),
        }
    }

    #[test]
    fn status_follows_from_the_last_sync() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let records = folder.path().join("addresses");
        fs::create_dir(&records).expect("a folder");
        for address in ["10.244.1.2", "10.244.1.3", "fd00::2"] {
            fs::write(records.join(address), "").expect("a file");
        }
        let pod_cidrs = ["10.244.1.0/29", "fd00::/48"].map(|cidr| cidr.parse().expect("a block")).into();
        let problem = |cidr: &str| NodeProblem::NotOnLink {
            cidr: cidr.parse().expect("a block"),
            address: [192, 0, 2, 7].into(),
        };
        let isolated = |node: &str| IsolatedObject {
            object: ObjectKey { kind: Kind::Node, name: NamespacedName::new("", node) },
            cause: IsolationCause::Rejected,
            has_rules: None,
            text: format!("no route to pods of node {node}: File exists"),
        };
        let measurements = PodNetworkMeasurements {
            nodes: 4,
            problems: [
                (Name::new("b"), vec![problem("10.244.2.0/24"), NodeProblem::NoPodCidrs]),
                (Name::new("c"), Vec::new()),
            ]
            .into(),
            rejected: 2,
            is_ready: false,
            mtu: Some(1450),
            leaked_attachments: 0,
            addresses: PodAddressSource { state_dir: folder.path().to_owned(), pod_cidrs },
        };
        let sync = FinishedSync {
            results: vec![RulesResult {
                rules: "pod network",
                is_full: true,
                duration: Duration::ZERO,
                restored: 0,
                isolated: vec![isolated("b"), isolated("a")],
                error: Some(RulesError { message: "no uplink".to_owned(), may_restart_help: false }),
            }],
            measurements: Measurements::PodNetwork(measurements),
            ..FinishedSync::default()
        };
        let statuses = statuses(Some(sync));
        let status = status(&settings(), &statuses, usage(address_source(&statuses)));
        assert_eq!(
            (status.mode.as_str(), status.wiring.as_str(), status.masquerade),
            ("vxlan", "ptp", false)
        );
        assert_eq!((status.ready, status.reason.as_deref()), (Some(false), Some("no uplink")));
        assert_eq!((status.mtu, status.nodes), (Some(1450), Some(4)));
        assert_eq!(status.pod_cidrs, ["10.244.1.0/29", "fd00::/48"]);
        let addresses = status.addresses.expect("the records can be read");
        let numbers: Vec<_> = addresses.iter().map(|range| (range.held, range.free)).collect();
        assert_eq!(numbers, [(2, 3), (1, u64::MAX)], "{addresses:?}");
        let unreachable = &status.unreachable_nodes;
        assert_eq!((unreachable.count, unreachable.omitted), (2, 0), "{unreachable:?}");
        assert_eq!(
            (unreachable.items[0].node.as_str(), &unreachable.items[0].reasons[..]),
            ("a", &["rejected".to_owned()][..])
        );
        let b = &unreachable.items[1];
        assert_eq!(b.reasons, ["no_pod_cidrs", "not_on_link", "rejected"]);
        assert!(b.text.contains("10.244.2.0/24") && b.text.ends_with("node b: File exists"), "{}", b.text);
    }

    #[test]
    fn nothing_is_known_before_the_first_sync() {
        let statuses = statuses(None);
        let status = status(&settings(), &statuses, usage(address_source(&statuses)));
        assert_eq!((status.ready, status.nodes, status.mtu), (None, None, None));
        assert!(status.addresses.is_none() && status.pod_cidrs.is_empty());
    }
}
