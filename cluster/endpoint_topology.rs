//! Node and topology hints of an endpoint, shared by all endpoints with the same ones.

use std::fmt;
use std::sync::LazyLock;

use crate::interned::{InternTable, Internable, Interned};
use crate::name::Name;

/// The node and the topology hints of an endpoint, in 8 bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EndpointTopology(Option<Interned<Topology>>);

#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct Topology {
    node: Option<Name>,
    /// Sorted, without duplicates.
    zones: Box<[Name]>,
    /// Sorted, without duplicates.
    nodes: Box<[Name]>,
}

impl Internable for Topology {
    fn table() -> &'static InternTable<Self> {
        static TOPOLOGIES: LazyLock<InternTable<Topology>> = LazyLock::new(InternTable::new);
        &TOPOLOGIES
    }
}

impl EndpointTopology {
    /// Returns the topology of an endpoint on `node` with the hints `forZones` and `forNodes`.
    pub fn new<'a>(
        node: Option<&str>,
        zones: impl IntoIterator<Item = &'a str>,
        nodes: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let topology = Topology { node: node.map(Name::new), zones: set(zones), nodes: set(nodes) };
        if topology == Topology::default() {
            return EndpointTopology(None);
        }
        EndpointTopology(Some(Topology::table().intern_owned(topology)))
    }

    /// Returns the node on which the endpoint runs.
    pub fn node(&self) -> Option<&Name> {
        self.0.as_ref()?.node.as_ref()
    }

    /// Returns the zones that should use the endpoint (hints `forZones`).
    pub fn zones(&self) -> &[Name] {
        self.0.as_ref().map_or(&[], |topology| &topology.zones)
    }

    /// Returns the nodes that should use the endpoint (hints `forNodes`).
    pub fn nodes(&self) -> &[Name] {
        self.0.as_ref().map_or(&[], |topology| &topology.nodes)
    }
}

impl fmt::Debug for EndpointTopology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_deref().fmt(f)
    }
}

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> Box<[Name]> {
    let mut names: Vec<Name> = names.into_iter().map(Name::new).collect();
    names.sort_unstable();
    names.dedup();
    names.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topology_has_its_node_and_hints_in_8_bytes() {
        assert_eq!(std::mem::size_of::<EndpointTopology>(), 8);
        let topology = EndpointTopology::new(Some("node-1"), ["b", "a", "a"], ["node-1"]);
        assert_eq!(topology, EndpointTopology::new(Some("node-1"), ["a", "b"], ["node-1"]));
        assert_ne!(topology, EndpointTopology::new(Some("node-2"), ["a", "b"], ["node-1"]));
        assert_eq!(topology.node().map(Name::as_str), Some("node-1"));
        let texts = |names: &[Name]| names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(texts(topology.zones()), ["a", "b"]);
        assert_eq!(texts(topology.nodes()), ["node-1"]);
        let none = EndpointTopology::new(None, [], []);
        assert_eq!(none, EndpointTopology::default());
        assert!(none.node().is_none() && none.zones().is_empty() && none.nodes().is_empty());
    }
}
