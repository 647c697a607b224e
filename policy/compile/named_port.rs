//! Named ports and their sets of pod addresses and port numbers.

use std::fmt;

use portcullis_cluster::{Name, Protocol};

use super::identifier::{Digest, comment, identifier};
use super::policy_id::Direction;

/// Identity of a named port's set of (address, port).
///
/// A name is resolved in the destination pod of a connection: for ingress that is a pod in scope, for egress any pod of
/// the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamedPortId {
    /// The direction of the rules.
    pub direction: Direction,
    /// The port's name.
    pub name: Name,
    /// The port's protocol.
    pub protocol: Protocol,
}

impl NamedPortId {
    /// Returns the name of the nf_tables set.
    pub fn name(&self) -> String {
        let mut digest = Digest::new("named port");
        digest.part(self.direction.as_str()).part(self.name.as_str()).part(self.protocol.as_str());
        let readable = format!("{}/{}", self.name, self.protocol);
        identifier(&format!("port-{}", self.direction.short()), &readable, &digest.finish())
    }

    /// Returns a description for a comment, of at most 128 bytes.
    pub fn describe(&self) -> String {
        comment(self.to_string())
    }
}

impl fmt::Display for NamedPortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pods = match self.direction {
            Direction::Ingress => "pods judged here",
            Direction::Egress => "all pods",
        };
        write!(f, "port {}/{} of {pods}", self.name, self.protocol)
    }
}
