//! Reports of nodes whose pods cannot be reached: in the log, as Events, and as health problems.

use std::collections::BTreeMap;

use portcullis_cluster::{Kind, Name, NamespacedName, ObjectKey};
use portcullis_podnet::node_routes::NodeProblem;

use crate::control::ObjectNotice;
use crate::plural::plural;
use crate::truncated_list;

/// The problems of nodes, by name.
pub(super) type Problems = BTreeMap<Name, Vec<NodeProblem>>;

/// How many problems one sync logs or records Events about.
const NAMED: usize = 10;

/// How many nodes a health problem names.
const NAMED_IN_HEALTH: usize = 3;

/// The problems that were reported.
#[derive(Debug, Default)]
pub(super) struct ReportedProblems {
    logged: Problems,
    noticed: Problems,
}

impl ReportedProblems {
    /// Logs problems that are new, and nodes that have none any more.
    pub(super) fn log(&mut self, problems: &Problems) {
        let new: Vec<(&Name, &NodeProblem)> = new(&self.logged, problems);
        for (node, problem) in new.iter().take(NAMED) {
            match problem {
                // A new Node gets them within seconds.
                NodeProblem::NoPodCidrs => tracing::info!(%node, "no route to pods of a node: {problem}"),
                _ => tracing::warn!(%node, "no route to pods of a node: {problem}"),
            }
        }
        if new.len() > NAMED {
            tracing::warn!(nodes = new.len() - NAMED, "no routes to pods of further nodes");
        }
        if self.logged != *problems {
            self.logged.clone_from(problems);
        }
    }

    /// Returns the Events about problems that are new. All nodes report them alike.
    pub(super) fn notices(&mut self, problems: &Problems, own: &Name) -> (Vec<ObjectNotice>, usize) {
        let relevant = new(&self.noticed, problems).into_iter().filter(|(node, _)| *node != own);
        let mut notices: Vec<ObjectNotice> =
            relevant.filter_map(|(node, problem)| notice(node, problem)).collect();
        let omitted = notices.len().saturating_sub(NAMED);
        notices.truncate(NAMED);
        if self.noticed != *problems {
            self.noticed.clone_from(problems);
        }
        (notices, omitted)
    }

    /// Returns the health problems. Those of other nodes fail no health check: this node can do nothing about them.
    pub(super) fn health(&self, problems: &Problems, own: &Name) -> Vec<String> {
        let mut by_reason: BTreeMap<&str, Vec<&Name>> = BTreeMap::new();
        for (node, problem) in problems.iter().flat_map(|(node, all)| all.iter().map(move |one| (node, one)))
        {
            if node != own && *problem != NodeProblem::NoPodCidrs {
                by_reason.entry(problem.reason()).or_default().push(node);
            }
        }
        let text = |(reason, mut nodes): (&str, Vec<&Name>)| {
            nodes.dedup();
            let names = truncated_list::names(&nodes, NAMED_IN_HEALTH);
            let nodes = plural(nodes.len(), "node");
            format!("no routes to pods of {nodes} ({}): {names}", reason.replace('_', " "))
        };
        by_reason.into_iter().map(text).collect()
    }
}

/// Returns the problems that are not among those before.
fn new<'a>(before: &Problems, now: &'a Problems) -> Vec<(&'a Name, &'a NodeProblem)> {
    let all = now.iter().flat_map(|(node, problems)| problems.iter().map(move |problem| (node, problem)));
    all.filter(|(node, problem)| !before.get(*node).is_some_and(|known| known.contains(problem))).collect()
}

/// Returns the Event about a problem, unless it is usual for a new Node.
fn notice(node: &Name, problem: &NodeProblem) -> Option<ObjectNotice> {
    let reason = match problem {
        NodeProblem::Conflict { .. } => "PodCIDRConflict",
        NodeProblem::Reserved { .. } => "PodCIDRReserved",
        _ => return None,
    };
    let object = ObjectKey { kind: Kind::Node, name: NamespacedName::new("", node.as_str()) };
    Some(ObjectNotice { object, reason, note: format!("no route to pods of the node: {problem}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_reported_once() {
        let conflict = |other: &str| NodeProblem::Conflict {
            cidr: "10.244.2.0/24".parse().expect("a block"),
            other: Name::new(other),
            other_cidr: "10.244.2.0/24".parse().expect("a block"),
        };
        let own = Name::new("own");
        let mut reported = ReportedProblems::default();
        let mut problems: Problems =
            [("b", vec![conflict("a")]), ("c", vec![NodeProblem::NoPodCidrs]), ("own", vec![conflict("a")])]
                .map(|(name, problems)| (Name::new(name), problems))
                .into();
        let (notices, omitted) = reported.notices(&problems, &own);
        assert_eq!((notices.len(), omitted), (1, 0));
        assert_eq!((&*notices[0].object.name.name, notices[0].reason), ("b", "PodCIDRConflict"));
        assert_eq!(reported.health(&problems, &own), ["no routes to pods of 1 node (conflict): b"]);
        assert_eq!(reported.notices(&problems, &own), (vec![], 0), "once");
        for number in 0..30 {
            problems.insert(Name::new(&format!("n{number:02}")), vec![conflict("b")]);
        }
        let (notices, omitted) = reported.notices(&problems, &own);
        assert_eq!((notices.len(), omitted), (NAMED, 20));
        let health = reported.health(&problems, &own);
        assert_eq!(health.len(), 1);
        assert!(health[0].starts_with("no routes to pods of 31 nodes (conflict): b"), "{health:?}");
    }
}
