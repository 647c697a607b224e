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
    /// `mangle`, which only has a canary chain.
    Mangle,
    /// `nat`.
    Nat,
}

impl Table {
    /// The tables that we write to, sorted by name as in dumps.
    pub const ALL: [Table; 3] = [Table::Filter, Table::Mangle, Table::Nat];

    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Table::Filter => "filter",
            Table::Mangle => "mangle",
            Table::Nat => "nat",
        }
    }

    /// Returns the table with this name, if it is one of ours.
    pub fn from_name(name: &str) -> Option<Table> {
        Table::ALL.into_iter().find(|t| t.as_str() == name)
    }

    /// Returns its built-in chains, in the order of dumps.
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

/// The longest chain name (`XT_EXTENSION_MAXNAMELEN` without the terminating zero).
const MAX_CHAIN_NAME: usize = 28;

/// The name of a chain, stored inline: there may be a hundred thousand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainName {
    bytes: [u8; MAX_CHAIN_NAME],
    length: u8,
}

impl ChainName {
    /// Returns the name, or `None` if it is longer than the kernel allows.
    pub fn new(name: &str) -> Option<ChainName> {
        let mut bytes = [0; MAX_CHAIN_NAME];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(ChainName { bytes, length: name.len() as u8 })
    }

    /// Returns the name as text.
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

/// The kinds of chains of a Service port. Their prefixes are kube-proxy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceChainKind {
    /// Balances over the endpoints for traffic policy Cluster.
    Cluster,
    /// Balances over the endpoints for traffic policy Local.
    Local,
    /// Handles traffic from outside the cluster.
    External,
    /// Accepts traffic from the load balancer's source ranges.
    Firewall,
}

impl ServiceChainKind {
    fn prefix(self) -> &'static str {
        match self {
            ServiceChainKind::Cluster => "KUBE-SVC-",
            ServiceChainKind::Local => "KUBE-SVL-",
            ServiceChainKind::External => "KUBE-EXT-",
            ServiceChainKind::Firewall => "KUBE-FW-",
        }
    }
}

const ENDPOINT_PREFIX: &str = "KUBE-SEP-";

/// Returns true if this is the name of a Service's chain in table nat.
pub fn is_service_chain(name: &str) -> bool {
    ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", ENDPOINT_PREFIX].iter().any(|p| name.starts_with(p))
}

/// The names of the chains of one Service port: all contain one hash.
pub(super) struct ServiceChainNames {
    hash: [u8; 16],
    hasher: Sha256,
}

impl ServiceChainNames {
    pub(super) fn new(port: &ServicePortName) -> ServiceChainNames {
        let mut hasher = Sha256::new();
        hasher.update(port.to_string());
        hasher.update(port.protocol.as_str());
        ServiceChainNames { hash: base32(hasher.clone()), hasher }
    }

    /// Returns the hash that ends the names of all its chains but those of endpoints.
    pub(super) fn hash(&self) -> &str {
        std::str::from_utf8(&self.hash).expect("base 32 is ASCII")
    }

    pub(super) fn chain(&self, kind: ServiceChainKind) -> ChainName {
        joined(kind.prefix(), &self.hash)
    }

    pub(super) fn endpoint(&self, endpoint: &Endpoint) -> ChainName {
        let mut hasher = self.hasher.clone();
        hasher.update(endpoint.socket().to_string());
        joined(ENDPOINT_PREFIX, &base32(hasher))
    }
}

/// Returns the first 16 letters of the hash in base 32.
fn base32(hasher: Sha256) -> [u8; 16] {
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

/// A chain that holds some rules of each of many Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum SharedChain {
    /// `nat KUBE-SERVICES`: virtual addresses.
    NatServices,
    /// `nat KUBE-NODEPORTS`: node ports.
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

    /// Returns its index in [`SharedChain::ALL`].
    pub(super) fn index(self) -> usize {
        SharedChain::ALL.iter().position(|c| *c == self).expect("ALL names every chain")
    }
}
