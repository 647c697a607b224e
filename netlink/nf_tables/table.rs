//! A table as a value: what we want of it, or what the kernel has.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::element::{Element, Key};
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
    /// Both.
    Inet = 1,
    /// Frames that pass a bridge. There is no connection tracking here unless the kernel has nf_conntrack_bridge.
    Bridge = 7,
}

impl TableFamily {
    /// As `nft` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            TableFamily::Ip => "ip",
            TableFamily::Ip6 => "ip6",
            TableFamily::Inet => "inet",
            TableFamily::Bridge => "bridge",
        }
    }
}

/// A table with all that is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: TableFamily,
    /// Its name.
    pub name: Arc<str>,
    /// What is said of it.
    pub comment: Option<Arc<str>>,
    /// Its chains by name.
    pub chains: BTreeMap<Arc<str>, Chain>,
    /// Its sets and maps by name.
    pub sets: BTreeMap<Arc<str>, Set>,
    /// Its named counters, with what is said of each. What they count is not here.
    pub counters: BTreeMap<Arc<str>, Option<Arc<str>>>,
}

impl Table {
    /// An empty one.
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
    /// Where packets come into it, if not from other chains only.
    pub base: Option<BaseChain>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
    /// What is said of it.
    pub comment: Option<Arc<str>>,
}

impl Chain {
    /// A chain that other chains lead to.
    pub fn new(rules: Vec<Rule>) -> Self {
        Chain { base: None, rules, comment: None }
    }

    /// Says something of it; at most 127 bytes are kept.
    pub fn with_comment(self, text: &str) -> Self {
        Chain { comment: Some(super::comment::shortened(text).into()), ..self }
    }
}

/// Where a base chain hangs. Its policy is to accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BaseChain {
    /// What it may do.
    pub kind: ChainKind,
    /// Where packets pass it.
    pub hook: Hook,
    /// Those of smaller priorities come first. 0 is `filter`, -100 `dstnat`, 100 `srcnat`.
    pub priority: i32,
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainKind {
    /// Accept and drop.
    Filter,
    /// Translate addresses; it sees the first packet of each connection only.
    Nat,
}

impl ChainKind {
    /// As the kernel and `nft` write it.
    pub fn as_str(self) -> &'static str {
        match self {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        }
    }
}

/// Where in the kernel packets pass (`NF_INET_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// What comes in, before it is routed.
    Prerouting = 0,
    /// What is for this machine.
    Input = 1,
    /// What passes through.
    Forward = 2,
    /// What this machine sends.
    Output = 3,
    /// What goes out.
    Postrouting = 4,
}

impl Hook {
    /// As `nft` writes it.
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
    /// What it is.
    pub spec: SetSpec,
    /// What is in it. Of a set that rules write to, only what is put there by us.
    pub elements: HashMap<Key, Element>,
    /// Elements of a set in the kernel that [`Element`] cannot express, as `nft` would print their keys: catch-all
    /// elements, and elements with expressions. None of them is ours.
    pub unknown: Vec<String>,
}

impl Set {
    /// An empty one.
    pub fn new(spec: SetSpec) -> Self {
        Set { spec, elements: HashMap::new(), unknown: Vec::new() }
    }

    /// One with these elements.
    pub fn with_elements(spec: SetSpec, elements: impl IntoIterator<Item = (Key, Element)>) -> Self {
        Set { spec, elements: elements.into_iter().collect(), unknown: Vec::new() }
    }
}

impl Set {
    /// The element that a key falls on.
    pub fn find(&self, key: &Key) -> Option<&Element> {
        if !self.spec.interval {
            return self.elements.get(key);
        }
        self.elements
            .iter()
            .find(|(first, element)| self.spec.covers(first, element.last.as_ref(), key))
            .map(|(_, element)| element)
    }
}

/// Deletes a table with all that is in it, in the namespace of `socket` (a [`NetlinkProtocol::Netfilter`] one). Says
/// whether there was one: a kernel without nf_tables has none.
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
