//! Peer sets: addresses of the pods and nodes that selectors match.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use portcullis_cluster::Name;
use portcullis_cluster::label_selector::LabelSelector;

use super::identifier::{Digest, comment, identifier};

/// Peers that one selector matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerSelector {
    /// Pods.
    Pods {
        /// Their namespaces.
        namespaces: NamespaceScope,
        /// The selector of pods in these namespaces.
        pods: LabelSelector,
    },
    /// Nodes.
    Nodes(LabelSelector),
}

/// Namespaces of a peer's pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamespaceScope {
    /// This namespace, whatever its labels.
    One(Name),
    /// All namespaces that a selector matches.
    Selected(LabelSelector),
}

/// Identity of a peer set: the union of the peers that its selectors match. Rules with the same selectors share one
/// set, also across policies.
#[derive(Clone)]
pub struct PeerSetId {
    digest: [u8; 16],
    selectors: Arc<[PeerSelector]>,
}

impl PeerSetId {
    /// Returns the set of all peers that any of these selectors matches.
    pub(super) fn new(mut selectors: Vec<PeerSelector>) -> Self {
        selectors.sort();
        selectors.dedup();
        let mut digest = Digest::new("set");
        selectors.iter().for_each(|selector| selector.feed(&mut digest));
        PeerSetId { digest: digest.finish(), selectors: selectors.into() }
    }

    /// Returns its selectors, sorted.
    pub fn selectors(&self) -> &[PeerSelector] {
        &self.selectors
    }

    /// Returns the name of the nf_tables set.
    pub fn name(&self) -> String {
        identifier("set", &self.to_string(), &self.digest)
    }

    /// Returns a description for a comment, of at most 128 bytes.
    pub fn describe(&self) -> String {
        comment(self.to_string())
    }
}

impl PeerSelector {
    fn feed(&self, digest: &mut Digest) {
        match self {
            PeerSelector::Pods { namespaces: NamespaceScope::One(name), pods } => {
                digest.part("pods of").part(name.as_str());
                feed(pods, digest);
            }
            PeerSelector::Pods { namespaces: NamespaceScope::Selected(namespaces), pods } => {
                digest.part("pods");
                feed(namespaces, digest);
                feed(pods, digest);
            }
            PeerSelector::Nodes(nodes) => {
                digest.part("nodes");
                feed(nodes, digest);
            }
        }
    }
}

fn feed(selector: &LabelSelector, digest: &mut Digest) {
    digest.part(&selector.requirements().len().to_string());
    for requirement in selector.requirements() {
        digest.part(requirement.key.as_str()).part(requirement.operator.as_str());
        digest.part(&requirement.values.len().to_string());
        requirement.values.iter().for_each(|value| {
            digest.part(value.as_str());
        });
    }
}

impl PartialEq for PeerSetId {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for PeerSetId {}

impl Hash for PeerSetId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl Ord for PeerSetId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.digest.cmp(&other.digest)
    }
}

impl PartialOrd for PeerSetId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for PeerSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all_or = |what: &str, selector: &LabelSelector| match selector.selects_all() {
            true => format!("all {what}"),
            false => format!("{what} {selector}"),
        };
        match self {
            PeerSelector::Pods { namespaces: NamespaceScope::One(name), pods } => {
                write!(f, "{} in namespace {name}", all_or("pods", pods))
            }
            PeerSelector::Pods { namespaces: NamespaceScope::Selected(namespaces), pods } => {
                write!(f, "{} in {}", all_or("pods", pods), all_or("namespaces", namespaces))
            }
            PeerSelector::Nodes(nodes) => f.write_str(&all_or("nodes", nodes)),
        }
    }
}

impl fmt::Display for PeerSetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, selector) in self.selectors.iter().enumerate() {
            let between = if i == 0 { "" } else { "; " };
            write!(f, "{between}{selector}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for PeerSetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}
