//! Notifications of nf_tables transactions, by which changes of other processes are detected.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::constants::{attributes as a, messages as m};
use super::event_pause::Subscription;
use super::table::TableFamily;
use crate::attribute::Attribute;
use crate::error::{During, Error, Result};
use crate::message::Message;
use crate::netfilter::{self, Subsystem};
use crate::socket::{NetlinkProtocol, Socket};

/// `NFNLGRP_NFTABLES`.
pub(super) const GROUP: u32 = 7;

const ACTION: &str = "receive nf_tables events";

/// The offset of the port ID in a netlink header: that of the socket that made the change.
const PORT_ID_OFFSET: u32 = 12;

/// The tables of iptables-nft.
const IPTABLES: [&str; 3] = ["filter", "nat", "mangle"];

/// The built-in chains of [`IPTABLES`].
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// A subscription to changes of a part of the rule set by other processes.
#[derive(Debug)]
pub struct RulesetEvents {
    socket: Socket,
    /// Its pauses during large writes of this process; `None` if the kernel does not allow them.
    subscription: Option<Arc<Subscription>>,
    watched: Watched,
    /// The transaction that is being received changes the watched part.
    is_relevant: bool,
}

/// The watched part of the rule set.
#[derive(Debug)]
enum Watched {
    /// All tables of this name.
    Table(String),
    /// In the tables of iptables-nft: chains with this prefix, and deletions from built-in chains.
    Chains(&'static str),
}

/// A committed transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionEvent {
    /// It changed the watched part of the rule set.
    pub is_relevant: bool,
    /// The [generation](super::generation()) after the transaction.
    pub generation: u32,
    /// The ID of the process that sent it; 0 if unknown.
    pub pid: u32,
    /// The name of that process.
    pub process_name: String,
}

impl RulesetEvents {
    /// Subscribes to changes of tables with this name in the calling thread's network namespace, except transactions that
    /// the socket `own` sends.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if the privilege or nf_tables is missing.
    pub fn listen(table: &str, own: &Socket) -> Result<Self> {
        let socket = Socket::listen(NetlinkProtocol::Netfilter, &[GROUP])?;
        socket.drop_events(ACTION, PORT_ID_OFFSET, own.port()?)?;
        Ok(Self::new(socket, Watched::Table(table.to_owned())))
    }

    /// Subscribes to changes of chains with this prefix in the tables of iptables-nft, and to deletions of rules from
    /// built-in chains, in the calling thread's network namespace. Includes changes by tools that the caller runs, because
    /// each run has a socket of its own.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if the privilege or nf_tables is missing.
    pub fn listen_to_iptables(prefix: &'static str) -> Result<Self> {
        let socket = Socket::listen(NetlinkProtocol::Netfilter, &[GROUP])?;
        Ok(Self::new(socket, Watched::Chains(prefix)))
    }

    fn new(socket: Socket, watched: Watched) -> Self {
        let subscription = Subscription::register(socket.as_fd());
        RulesetEvents { socket, subscription, watched, is_relevant: false }
    }

    /// Waits for transactions, and passes each to `each`. Returns after one datagram.
    ///
    /// # Errors
    /// [`crate::Error::Overrun`] if notifications were lost, also while this process wrote a large table: the watched part may
    /// have changed.
    pub fn wait(&mut self, mut each: impl FnMut(TransactionEvent)) -> Result<()> {
        let RulesetEvents { socket, subscription, watched, is_relevant } = self;
        socket.wait(ACTION, subscription.as_ref().map(|subscription| subscription.wake()))?;
        if subscription.as_ref().is_some_and(|subscription| subscription.take_lost_events()) {
            *is_relevant = false;
            return Err(Error::Overrun { action: ACTION });
        }
        let read = socket.events(ACTION, |message| {
            if let Some(event) = read(message, watched, is_relevant)? {
                each(event);
            }
            Ok(())
        });
        match read {
            Ok(_) => Ok(()),
            Err(error) => {
                *is_relevant = false;
                Err(error)
            }
        }
    }
}

/// Reads a message. Returns the transaction after its last message (`NFT_MSG_NEWGEN`).
fn read(message: Message<'_>, watched: &Watched, is_relevant: &mut bool) -> Result<Option<TransactionEvent>> {
    if message.kind >> 8 != Subsystem::NfTables as u16 {
        return Ok(None);
    }
    let ([family, ..], attributes) = message.split::<{ netfilter::HEADER }>().during(ACTION)?;
    let kind = message.kind as u8;
    if kind != m::NEWGEN {
        let (mut table, mut chain) = (None, None);
        let name_at = if kind == m::NEWCHAIN || kind == m::DELCHAIN { a::CHAIN_NAME } else { a::RULE_CHAIN };
        for attribute in attributes {
            let attribute = attribute.during(ACTION)?;
            // The first attribute of every object names its table.
            match attribute.kind {
                a::TABLE_NAME => table = Some(text(attribute)),
                at if at == name_at => chain = Some(text(attribute)),
                _ => {}
            }
        }
        *is_relevant |=
            watched.is_relevant_to(*family, kind, table.unwrap_or_default(), chain.unwrap_or_default());
        return Ok(None);
    }
    let mut event =
        TransactionEvent { is_relevant: std::mem::take(is_relevant), ..TransactionEvent::default() };
    for attribute in attributes {
        let attribute: Attribute<'_> = attribute.during(ACTION)?;
        match attribute.kind {
            a::GEN_ID => event.generation = attribute.u32_be().during(ACTION)?,
            a::GEN_PROC_PID => event.pid = attribute.u32_be().during(ACTION)?,
            a::GEN_PROC_NAME => event.process_name = attribute.text(),
            _ => {}
        }
    }
    Ok(Some(event))
}

impl Watched {
    /// Returns true for a change of a watched object. `chain` is empty unless the object is a chain or a rule.
    fn is_relevant_to(&self, family: u8, kind: u8, table: &[u8], chain: &[u8]) -> bool {
        match self {
            Watched::Table(name) => table == name.as_bytes(),
            Watched::Chains(prefix) => {
                let families = [TableFamily::Ip as u8, TableFamily::Ip6 as u8];
                let is_iptables =
                    families.contains(&family) && IPTABLES.iter().any(|t| table == t.as_bytes());
                let built_in = || BUILT_IN.iter().any(|name| chain == name.as_bytes());
                let is_watched = match kind {
                    m::DELTABLE => true,
                    m::NEWCHAIN | m::DELCHAIN | m::NEWRULE => chain.starts_with(prefix.as_bytes()),
                    m::DELRULE => chain.starts_with(prefix.as_bytes()) || built_in(),
                    _ => false,
                };
                is_iptables && is_watched
            }
        }
    }
}

fn text<'a>(attribute: Attribute<'a>) -> &'a [u8] {
    attribute.payload.strip_suffix(&[0]).unwrap_or(attribute.payload)
}
