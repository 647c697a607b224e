//! Tables, chains and sets as values: desired, or as the kernel has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::element::{Element, Key};
use super::elements::Elements;
use super::rule::Rule;
use super::set::SetSpec;
use super::transaction::Transaction;
use crate::error::Result;
use crate::socket::Socket;

/// The family of a table (`NFPROTO_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TableFamily {
    /// IPv4.
    Ip = 2,
    /// IPv6.
    Ip6 = 10,
    /// IPv4 and IPv6.
    Inet = 1,
    /// Bridged frames. There is no connection tracking unless the kernel has nf_conntrack_bridge.
    Bridge = 7,
}

impl TableFamily {
    /// Returns the name that `nft` uses.
    pub fn as_str(self) -> &'static str {
        match self {
            TableFamily::Ip => "ip",
            TableFamily::Ip6 => "ip6",
            TableFamily::Inet => "inet",
            TableFamily::Bridge => "bridge",
        }
    }
}

/// A table with its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: TableFamily,
    /// Its name.
    pub name: Arc<str>,
    /// The comment.
    pub comment: Option<Arc<str>>,
    /// Its chains by name.
    pub chains: BTreeMap<Arc<str>, Chain>,
    /// Its sets and maps by name.
    pub sets: BTreeMap<Arc<str>, Set>,
    /// Its named counters by name, with their comments but without their values.
    pub counters: BTreeMap<Arc<str>, Option<Arc<str>>>,
}

impl Table {
    /// Returns an empty table.
    pub fn new(family: TableFamily, name: &str) -> Self {
        Table {
            family,
            name: name.into(),
            comment: None,
            chains: BTreeMap::new(),
            sets: BTreeMap::new(),
            counters: BTreeMap::new(),
        }
    }
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The hook, if it is a base chain.
    pub base: Option<BaseChain>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
    /// The comment.
    pub comment: Option<Arc<str>>,
}

impl Chain {
    /// Returns a regular chain, to which other chains jump.
    pub fn new(rules: Vec<Rule>) -> Self {
        Chain { base: None, rules, comment: None }
    }

    /// Sets the comment, truncated to 127 bytes.
    pub fn with_comment(self, text: &str) -> Self {
        Chain { comment: Some(super::comment::sanitize(text).into()), ..self }
    }
}

/// The type, hook and priority of a base chain. The policy is always accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BaseChain {
    /// The type.
    pub kind: ChainKind,
    /// The hook.
    pub hook: Hook,
    /// Chains with lower priorities come first. 0 is `filter`, -100 `dstnat`, 100 `srcnat`.
    pub priority: i32,
}

/// The type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainKind {
    /// Accepts and drops packets.
    Filter,
    /// Translates addresses; sees only the first packet of each connection.
    Nat,
}

impl ChainKind {
    /// Returns the name that the kernel and `nft` use.
    pub fn as_str(self) -> &'static str {
        match self {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        }
    }
}

/// A netfilter hook (`NF_INET_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Received packets before routing.
    Prerouting = 0,
    /// Packets to this host.
    Input = 1,
    /// Forwarded packets.
    Forward = 2,
    /// Packets that this host sends.
    Output = 3,
    /// Outgoing packets after routing.
    Postrouting = 4,
}

impl Hook {
    /// Returns the name that `nft` uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        }
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting]
            .into_iter()
            .find(|hook| *hook as u32 == number)
    }
}

/// A set or a map with its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its key, data and flags.
    pub spec: SetSpec,
    /// Its elements. For dynamic sets, without those that rules added.
    pub elements: Elements,
    /// Elements in the kernel that [`Element`] cannot express, as `nft` would print their keys: catch-all elements and
    /// elements with expressions or comments. Other processes added them.
    pub unknown: Vec<String>,
}

impl Set {
    /// Returns an empty set.
    pub fn new(spec: SetSpec) -> Self {
        Set { spec, elements: Elements::new(), unknown: Vec::new() }
    }

    /// Returns a set with these elements.
    pub fn with_elements(spec: SetSpec, elements: impl IntoIterator<Item = (Key, Element)>) -> Self {
        Set { spec, elements: elements.into_iter().collect(), unknown: Vec::new() }
    }
}

/// Deletes a table with its contents in the network namespace of `socket`, a [`NetlinkProtocol::Netfilter`] socket. Returns
/// false if there was no such table, or the kernel has no nf_tables.
///
/// [`NetlinkProtocol::Netfilter`]: crate::socket::NetlinkProtocol::Netfilter
///
/// # Errors
/// [`Error::Rejected`]: `EPERM` without CAP_NET_ADMIN, or if another process owns the table.
///
/// [`Error::Rejected`]: crate::Error::Rejected
pub fn delete_table(socket: &mut Socket, family: TableFamily, name: &str) -> Result<bool> {
    let mut transaction = Transaction::new("delete an nf_tables table", family, name)?;
    transaction.delete_table()?;
    match transaction.commit(socket) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::EOPNOTSUPP)) => Ok(false),
        Err(error) => Err(error),
    }
}
