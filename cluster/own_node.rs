//! This node's own Node object: its last known facts are kept while it is missing or incomplete.
//!
//! Deleting the Node object does not remove the node: its pods and addresses are still there, and the kubelet registers the
//! object again when it restarts. Pod CIDRs, addresses and the zone are assigned to the new object one after the other.
//! Until then, rules that depend on them must not fall back to those for an unknown node.

use std::fmt;

use crate::name::Name;
use crate::node::{Node, ZONE_LABEL};

/// The facts that this node's Node object lacks and that are kept as last known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissingNodeFacts {
    /// The object itself: it was deleted.
    pub object: bool,
    /// `spec.podCIDRs`.
    pub pod_cidrs: bool,
    /// Addresses of type `InternalIP` or `ExternalIP` in `status.addresses`.
    pub addresses: bool,
    /// The label [`ZONE_LABEL`], since the object was created again.
    pub zone: bool,
}

impl fmt::Display for MissingNodeFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.object {
            return f.write_str("was deleted; keeping its last addresses, pod CIDRs and labels");
        }
        let facts = [(self.pod_cidrs, "pod CIDRs"), (self.addresses, "addresses"), (self.zone, "zone label")];
        let missing: Vec<&str> =
            facts.into_iter().filter_map(|(missing, fact)| missing.then_some(fact)).collect();
        write!(f, "no longer has {}; keeping the last known", missing.join(" and "))
    }
}

/// The name of this node, and the facts that its Node object lacks.
#[derive(Clone, Debug)]
pub(crate) struct OwnNode {
    pub(crate) name: Name,
    pub(crate) missing: MissingNodeFacts,
}

impl OwnNode {
    pub(crate) fn new(name: Name) -> Self {
        OwnNode { name, missing: MissingNodeFacts::default() }
    }

    /// Records that the object was deleted.
    pub(crate) fn deleted(&mut self) {
        self.missing = MissingNodeFacts { object: true, ..MissingNodeFacts::default() };
    }

    /// Completes a new version of the object with facts that it lacks and that the version `before` has. Pod CIDRs cannot be
    /// removed from a Node, and a Node without an address cannot be reached, so these will be assigned later. A zone label may
    /// be removed intentionally, so it is kept only if the object was deleted before.
    pub(crate) fn complete(&mut self, mut node: Node, before: &Node) -> Node {
        let had = self.missing;
        self.missing = MissingNodeFacts {
            object: false,
            pod_cidrs: node.pod_cidrs.is_empty() && !before.pod_cidrs.is_empty(),
            addresses: node.ips().next().is_none() && before.ips().next().is_some(),
            zone: false,
        };
        if self.missing.pod_cidrs {
            node.pod_cidrs.clone_from(&before.pod_cidrs);
        }
        if self.missing.addresses {
            node.internal_ips.clone_from(&before.internal_ips);
            node.external_ips.clone_from(&before.external_ips);
        }
        if let (true, None, Some(zone)) = (had.object || had.zone, node.zone(), before.zone()) {
            self.missing.zone = true;
            node.labels = node.labels.with(ZONE_LABEL, zone.as_str());
        }
        node
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::event::Event;
    use crate::index::Index;
    use crate::kind::Kind;
    use crate::name::{Name, NamespacedName};
    use crate::object::{Object, ObjectKey};

    fn node(name: &str, zone: bool, pod_cidrs: bool, addresses: bool) -> Event {
        let some = |present: bool, value: Value| if present { value } else { Value::Null };
        let value = json!({
            "metadata": {"name": name, "labels": some(zone, json!({"topology.kubernetes.io/zone": "a"}))},
            "spec": {"podCIDRs": some(pod_cidrs, json!(["10.244.1.0/24"]))},
            "status": {"addresses": some(addresses, json!([{"type": "InternalIP", "address": "10.0.0.1"}]))},
        });
        Event::Applied(Object::parse(Kind::Node, value).expect("a Node").object)
    }

    fn deleted(name: &str) -> Event {
        Event::Deleted(ObjectKey { kind: Kind::Node, name: NamespacedName::new("", name) })
    }

    /// Returns whether the own node is known with its zone, pod CIDRs and addresses.
    fn known(index: &Index) -> Option<[bool; 3]> {
        let node = index.node(&Name::new("own"))?;
        Some([node.zone().is_some(), !node.pod_cidrs.is_empty(), node.ips().next().is_some()])
    }

    #[test]
    fn facts_of_the_own_node_are_kept_until_new_ones_are_assigned() {
        let full = || node("own", true, true, true);
        let list = |nodes: Vec<Event>| {
            let begun = std::iter::once(Event::ListStarted(Kind::Node));
            begun.chain(nodes).chain([Event::Listed(Kind::Node)]).collect::<Vec<_>>()
        };
        let all = Some([true; 3]);
        type Row<'a> = (&'a str, Vec<Event>, Option<[bool; 3]>, &'a str);
        let rows: Vec<Row<'_>> = vec![
            ("never known", vec![deleted("own")], None, ""),
            ("known", vec![full()], all, ""),
            ("deleted", vec![full(), deleted("own")], all, "was deleted"),
            ("not in the next list", [vec![full()], list(vec![])].concat(), all, "was deleted"),
            ("created again", vec![full(), deleted("own"), full()], all, ""),
            (
                "created again with nothing",
                vec![full(), deleted("own"), node("own", false, false, false)],
                all,
                "no longer has pod CIDRs and addresses and zone label",
            ),
            (
                "assigned one by one",
                vec![
                    full(),
                    deleted("own"),
                    node("own", false, false, false),
                    node("own", false, true, false),
                    node("own", false, true, true),
                ],
                all,
                "no longer has zone label",
            ),
            ("all assigned", vec![full(), deleted("own"), node("own", false, false, false), full()], all, ""),
            (
                "replaced between two lists",
                [vec![full()], list(vec![node("own", true, false, true)])].concat(),
                all,
                "no longer has pod CIDRs",
            ),
            (
                "a zone label that is removed",
                vec![full(), node("own", false, true, true)],
                Some([false, true, true]),
                "",
            ),
            (
                "never had a zone",
                vec![node("own", false, true, true), deleted("own")],
                Some([false, true, true]),
                "was deleted",
            ),
        ];
        for (case, events, expected, missing) in rows {
            let mut index = Index::for_node(Name::new("own"));
            events.into_iter().for_each(|event| _ = index.handle(event));
            assert_eq!(known(&index), expected, "{case}");
            let message = index.own_node_missing().map(|missing| missing.to_string()).unwrap_or_default();
            assert_eq!(message.is_empty(), missing.is_empty(), "{case}: {message}");
            assert!(message.contains(missing), "{case}: {message}");
        }
    }

    #[test]
    fn other_nodes_are_removed_when_they_are_deleted() {
        let mut index = Index::for_node(Name::new("own"));
        for event in [node("other", true, true, true), deleted("other")] {
            index.handle(event);
        }
        assert!(index.node(&Name::new("other")).is_none());
        assert_eq!(index.own_node_missing(), None);
    }
}
