//! Tables and chains, and the public names of kube-proxy's chains.

use std::fmt;

use data_encoding::BASE32;
use portcullis_cluster::desired::{Endpoint, ServicePortName};
use sha2::{Digest, Sha256};

/// A table of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// `filter`.
    Filter,
    /// `mangle`, which only holds a canary.
    Mangle,
    /// `nat`.
    Nat,
}

impl Table {
    /// Those that we write to, sorted by name as dumps are.
    pub const ALL: [Table; 3] = [Table::Filter, Table::Mangle, Table::Nat];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Table::Filter => "filter",
            Table::Mangle => "mangle",
            Table::Nat => "nat",
        }
    }

    /// The table of a name, if it is one of ours.
    pub fn named(name: &str) -> Option<Table> {
        Table::ALL.into_iter().find(|t| t.as_str() == name)
    }

    /// Its built-in chains, in the order of dumps.
    pub fn built_in(self) -> &'static [&'static str] {
        match self {
            Table::Filter => &["INPUT", "FORWARD", "OUTPUT"],
            Table::Mangle => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
            Table::Nat => &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The longest name of a chain (`XT_EXTENSION_MAXNAMELEN` less the final zero).
const MAX_CHAIN_NAME: usize = 28;

/// The name of a chain, kept in place: there are a hundred thousand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainName {
    bytes: [u8; MAX_CHAIN_NAME],
    length: u8,
}

impl ChainName {
    /// A name; `None` if it is longer than the kernel allows.
    pub fn new(name: &str) -> Option<ChainName> {
        let mut bytes = [0; MAX_CHAIN_NAME];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(ChainName { bytes, length: name.len() as u8 })
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).expect("made from text")
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The kinds of chain that belong to one port of a Service; what they begin with is public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Balances over the endpoints for policy Cluster.
    Cluster,
    /// Balances over the endpoints for policy Local.
    Local,
    /// Takes traffic from outside.
    External,
    /// Lets the load balancer's source ranges pass.
    Firewall,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Kind::Cluster => "KUBE-SVC-",
            Kind::Local => "KUBE-SVL-",
            Kind::External => "KUBE-EXT-",
            Kind::Firewall => "KUBE-FW-",
        }
    }
}

const ENDPOINT_PREFIX: &str = "KUBE-SEP-";

/// Whether a chain of table nat belongs to some Service, by its name.
pub fn belongs_to_a_service(name: &str) -> bool {
    ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", ENDPOINT_PREFIX].iter().any(|p| name.starts_with(p))
}

/// The names of the chains of one port of a Service: all from one hash.
pub(super) struct Names {
    hash: [u8; 16],
    hasher: Sha256,
}

impl Names {
    pub(super) fn of(port: &ServicePortName) -> Names {
        let mut hasher = Sha256::new();
        hasher.update(port.to_string());
        hasher.update(port.protocol.as_str());
        Names { hash: base32_of(hasher.clone()), hasher }
    }

    /// What all of its chains but those of endpoints end with.
    pub(super) fn ending(&self) -> &str {
        std::str::from_utf8(&self.hash).expect("base 32 is ASCII")
    }

    pub(super) fn chain(&self, kind: Kind) -> ChainName {
        joined(kind.prefix(), &self.hash)
    }

    pub(super) fn endpoint(&self, endpoint: &Endpoint) -> ChainName {
        let mut hasher = self.hasher.clone();
        hasher.update(endpoint.socket().to_string());
        joined(ENDPOINT_PREFIX, &base32_of(hasher))
    }
}

/// The first 16 letters of the hash in base 32.
fn base32_of(hasher: Sha256) -> [u8; 16] {
    let mut letters = [0; 16];
    BASE32.encode_mut(&hasher.finalize()[..10], &mut letters);
    letters
}

fn joined(prefix: &str, hash: &[u8; 16]) -> ChainName {
    let mut name = ChainName { bytes: [0; MAX_CHAIN_NAME], length: (prefix.len() + hash.len()) as u8 };
    name.bytes[..prefix.len()].copy_from_slice(prefix.as_bytes());
    name.bytes[prefix.len()..prefix.len() + hash.len()].copy_from_slice(hash);
    name
}

/// Chains that hold a few rules of each of many Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum SharedChain {
    /// `nat KUBE-SERVICES`: where virtual addresses are caught.
    NatServices,
    /// `nat KUBE-NODEPORTS`: where node ports are caught.
    NatNodePorts,
    /// `filter KUBE-SERVICES`: ClusterIPs without endpoints.
    FilterServices,
    /// `filter KUBE-EXTERNAL-SERVICES`: other addresses without endpoints.
    FilterExternalServices,
    /// `filter KUBE-NODEPORTS`: health check ports.
    FilterNodePorts,
    /// `filter KUBE-PROXY-FIREWALL`: load balancer traffic from outside the source ranges.
    FilterFirewall,
}

impl SharedChain {
    pub(super) const ALL: [SharedChain; 6] = [
        SharedChain::FilterServices,
        SharedChain::FilterExternalServices,
        SharedChain::FilterNodePorts,
        SharedChain::FilterFirewall,
        SharedChain::NatServices,
        SharedChain::NatNodePorts,
    ];

    pub(super) fn table(self) -> Table {
        match self {
            SharedChain::NatServices | SharedChain::NatNodePorts => Table::Nat,
            _ => Table::Filter,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            SharedChain::NatServices | SharedChain::FilterServices => "KUBE-SERVICES",
            SharedChain::NatNodePorts | SharedChain::FilterNodePorts => "KUBE-NODEPORTS",
            SharedChain::FilterExternalServices => "KUBE-EXTERNAL-SERVICES",
            SharedChain::FilterFirewall => "KUBE-PROXY-FIREWALL",
        }
    }

    /// Its place in [`SharedChain::ALL`].
    pub(super) fn at(self) -> usize {
        SharedChain::ALL.iter().position(|c| *c == self).expect("ALL names every chain")
    }
}
