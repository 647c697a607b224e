//! A small cluster, whose rules are to survive changes by other processes.

use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Event, Index, Name, Object, manifest};
use portcullis_modes::iptables::IptablesFeatures;
use portcullis_modes::{DetectLocal, NodeFacts, NodePortAddresses, Options};

/// Services with session affinity, source ranges, a node port, local traffic policies, and without endpoints.
const MANIFEST: &str = include_str!("sample_cluster.yaml");

/// Returns the desired state of a node of the cluster.
pub(super) fn desired() -> Desired {
    let mut index = Index::new();
    for document in manifest::parse("sample_cluster.yaml", MANIFEST) {
        let document = document.unwrap();
        let parsed = Object::parse(document.kind.unwrap(), document.value).unwrap();
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        index.handle(Event::Applied(parsed.object));
    }
    Desired::from_index(&index, Name::new("node-a"))
}

pub(super) fn options() -> Options {
    Options {
        detect_local: DetectLocal::Cidrs(["10.244.0.0/16".parse().unwrap()].into()),
        node_port_addresses: NodePortAddresses::Primary { localhost: false },
        ..Options::default()
    }
}

pub(super) fn node() -> NodeFacts {
    NodeFacts {
        node_ips: ["192.168.10.11".parse().unwrap()].into(),
        iptables: IptablesFeatures { random_fully: true, nfacct: false },
        ..NodeFacts::default()
    }
}
