//! Reports of a missing or incomplete Node object of this node, in the log and in `/healthz`.

use portcullis_cluster::{Index, Kind, Name};

use crate::observe::health::{Health, HealthProblem};

/// Reports problems with this node's Node object when they change.
#[derive(Debug)]
pub(crate) struct OwnNodeReporter {
    node: Name,
    /// True if a Node object must exist. A folder of manifests may have none.
    expects_object: bool,
    /// The problem that was reported last.
    reported: Option<String>,
}

impl OwnNodeReporter {
    pub(crate) fn new(node: Name, expects_object: bool) -> Self {
        OwnNodeReporter { node, expects_object, reported: None }
    }

    /// Reports the problem if it has changed.
    pub(crate) fn observe(&mut self, index: &Index, health: &Health) {
        let problem = self.problem(index);
        if problem == self.reported {
            return;
        }
        match &problem {
            Some(problem) => tracing::warn!(node = %self.node, "Node {problem}"),
            None => {
                tracing::info!(node = %self.node, "Node {} exists and has all required fields", self.node)
            }
        }
        health.set_problems("Node", problem.iter().map(HealthProblem::warning).collect());
        self.reported = problem;
    }

    fn problem(&self, index: &Index) -> Option<String> {
        let node = &self.node;
        let does_not_exist = self.expects_object && index.is_listed(Kind::Node) && index.node(node).is_none();
        let missing = index.own_node_missing().map(|missing| format!("{node} {missing}"));
        missing.or_else(|| {
            does_not_exist.then(|| {
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
    fn missing_node_is_reported_only_after_nodes_are_listed() {
        let node = |name: &str| {
            let value = json!({"metadata": {"name": name}});
            Event::Applied(Object::parse(Kind::Node, value).expect("a Node").object)
        };
        let own = Name::new("own");
        let key = ObjectKey { kind: Kind::Node, name: NamespacedName::new("", "own") };
        let listed = || Event::Listed(Kind::Node);
        // Case, events, true if a Node object must exist, start of the problem.
        let rows = [
            ("Nodes are not listed yet", vec![], true, ""),
            ("only another Node", vec![node("other"), listed()], true, "own is not in the cluster"),
            ("no manifest of this node", vec![node("other"), listed()], false, ""),
            ("Node exists", vec![node("own"), listed()], true, ""),
            ("Node was deleted", vec![node("own"), listed(), Event::Deleted(key)], false, "own was deleted"),
        ];
        for (case, events, expects_object, expected) in rows {
            let mut index = Index::for_node(own.clone());
            events.into_iter().for_each(|event| _ = index.handle(event));
            let problem =
                OwnNodeReporter::new(own.clone(), expects_object).problem(&index).unwrap_or_default();
            assert_eq!(problem.is_empty(), expected.is_empty(), "{case}: {problem}");
            assert!(problem.starts_with(expected), "{case}: {problem}");
        }
    }
}
