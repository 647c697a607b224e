//! Reports what is not known of this node's Node object, in the log and in health.

use portcullis_cluster::{Index, Kind, Name};

use crate::http::{Health, HealthProblem};

/// What was last reported of a node.
#[derive(Debug)]
pub(super) struct OwnNodeReporter {
    node: Name,
    /// Whether a Node object is to be expected; a folder of manifests need not have any.
    expects_object: bool,
    reported: Option<String>,
}

impl OwnNodeReporter {
    pub(super) fn new(node: Name, expects_object: bool) -> Self {
        OwnNodeReporter { node, expects_object, reported: None }
    }

    /// Reports a change.
    pub(super) fn observe(&mut self, index: &Index, health: &Health) {
        let problem = self.problem(index);
        if problem == self.reported {
            return;
        }
        match &problem {
            Some(problem) => tracing::warn!(node = %self.node, "Node {problem}"),
            None => tracing::info!(node = %self.node, "Node {} is known completely", self.node),
        }
        health.set_problems("Node", problem.iter().map(HealthProblem::warning).collect());
        self.reported = problem;
    }

    fn problem(&self, index: &Index) -> Option<String> {
        let node = self.node;
        let never_known = self.expects_object && index.is_listed(Kind::Node) && index.node(node).is_none();
        let missing = index.own_node_missing().map(|missing| format!("{node} {missing}"));
        missing.or_else(|| {
            never_known.then(|| {
                format!(
                    "{node} is not in the cluster; its addresses are taken from the default route, and its pod CIDRs and \
                     zone are unknown; compare its name with `kubectl get nodes` (--hostname-override)"
                )
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::{Event, NamespacedName, Object, ObjectKey};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_missing_once_nodes_are_listed() {
        let node = |name: &str| {
            let value = json!({"metadata": {"name": name}});
            Event::Applied(Object::parse(Kind::Node, value).expect("a Node").object)
        };
        let own = Name::new("own");
        let key = ObjectKey { kind: Kind::Node, name: NamespacedName::new("", "own") };
        let listed = || Event::Listed(Kind::Node);
        // Events, whether a Node object is to be expected, and the problem.
        let rows = [
            ("nothing is listed", vec![], true, ""),
            ("only others", vec![node("other"), listed()], true, "own is not in the cluster"),
            ("no manifest of it", vec![node("other"), listed()], false, ""),
            ("known", vec![node("own"), listed()], true, ""),
            ("deleted", vec![node("own"), listed(), Event::Deleted(key)], false, "own was deleted"),
        ];
        for (case, events, expects_object, expected) in rows {
            let mut index = Index::for_node(own);
            events.into_iter().for_each(|event| _ = index.handle(event));
            let problem = OwnNodeReporter::new(own, expects_object).problem(&index).unwrap_or_default();
            assert_eq!(problem.is_empty(), expected.is_empty(), "{case}: {problem}");
            assert!(problem.starts_with(expected), "{case}: {problem}");
        }
    }
}
