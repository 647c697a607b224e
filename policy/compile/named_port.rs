//! A port name, and where pods have it.

use std::fmt;

use portcullis_cluster::{Name, Protocol};

use super::identifier::{Digest, comment, identifier};
use super::policy_id::Direction;

/// A port of a name: a set of (address, port).
///
/// A name is looked up in the pod at a connection's destination: for ingress that is a pod which is judged,
/// for egress any pod of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamedPortId {
    /// For which direction.
    pub direction: Direction,
    /// The port's name.
    pub name: Name,
    /// The port's protocol.
    pub protocol: Protocol,
}

impl NamedPortId {
    /// An identifier for nf_tables.
    pub fn name(&self) -> String {
        let mut digest = Digest::new("named port");
        digest.part(self.direction.as_str()).part(self.name.as_str()).part(self.protocol.as_str());
        let readable = format!("{}/{}", self.name, self.protocol);
        identifier(&format!("port-{}", self.direction.short()), &readable, &digest.finish())
    }

    /// What it is, in words for a comment: at most 128 bytes.
    pub fn describe(&self) -> String {
        comment(self.to_string())
    }
}

impl fmt::Display for NamedPortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = match self.direction {
            Direction::Ingress => "pods judged here",
            Direction::Egress => "all pods",
        };
        write!(f, "port {}/{} of {whose}", self.name, self.protocol)
    }
}
