//! Who else changes the rule set: nf_tables tells its listeners of every transaction.

use super::constants::{attributes as a, messages as m};
use super::table::TableFamily;
use crate::attribute::Attribute;
use crate::error::{During, Result};
use crate::message::Message;
use crate::netfilter::{self, Subsystem};
use crate::socket::{NetlinkProtocol, Socket};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

const ACTION: &str = "listen to changes of nf_tables";

/// Where a message's header has the port of the socket that made the change.
const PORT_AT: u32 = 12;

/// The tables of the iptables tools.
const IPTABLES: [&str; 3] = ["filter", "nat", "mangle"];

/// The chains of [`IPTABLES`] that hooks call.
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// The changes of a part of the rule set that other processes make.
#[derive(Debug)]
pub struct RulesetEvents {
    socket: Socket,
    watched: Watched,
    /// The transaction whose end has not come yet touches it.
    touched: bool,
}

/// A part of the rule set.
#[derive(Debug)]
enum Watched {
    /// All tables of this name.
    Table(String),
    /// In the tables of the iptables tools: chains whose names begin so, and what is deleted from built-in chains.
    Chains(&'static str),
}

/// A transaction of somebody else's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionEvent {
    /// It changed something that is watched.
    pub is_relevant: bool,
    /// The [generation](super::generation()) of the rule set that it made.
    pub generation: u32,
    /// The process that sent it; 0 if the kernel does not say.
    pub pid: u32,
    /// That process's name.
    pub process_name: String,
}

impl RulesetEvents {
    /// Listens, in the calling thread's network namespace, to what happens to a table of this name in any family.
    /// What `own` sends is left out.
    ///
    /// # Errors
    /// [`crate::Error::Io`] for want of privilege or of nf_tables.
    pub fn listen(table: &str, own: &Socket) -> Result<Self> {
        let socket = Socket::listen(NetlinkProtocol::Netfilter, &[GROUP])?;
        socket.drop_events(ACTION, PORT_AT, own.port()?)?;
        Ok(RulesetEvents { socket, watched: Watched::Table(table.to_owned()), touched: false })
    }

    /// Listens, in the calling thread's network namespace, to changes of chains whose names begin with `prefix` in the
    /// tables that the nft flavour of iptables has, and to rules that are deleted from built-in chains. Those of the
    /// caller's own tools are not left out: each run of them has a socket of its own.
    ///
    /// # Errors
    /// [`crate::Error::Io`] for want of privilege or of nf_tables.
    pub fn listen_to_iptables(prefix: &'static str) -> Result<Self> {
        let socket = Socket::listen(NetlinkProtocol::Netfilter, &[GROUP])?;
        Ok(RulesetEvents { socket, watched: Watched::Chains(prefix), touched: false })
    }

    /// Waits for transactions of others, and gives each to `each`. Returns after every datagram.
    ///
    /// # Errors
    /// [`crate::Error::Overrun`] if some were missed: whatever was watched may have changed.
    pub fn wait(&mut self, mut each: impl FnMut(TransactionEvent)) -> Result<()> {
        self.socket.wait(ACTION)?;
        let RulesetEvents { socket, watched, touched } = self;
        let read = socket.events(ACTION, |message| {
            if let Some(event) = read(message, watched, touched)? {
                each(event);
            }
            Ok(())
        });
        match read {
            Ok(_) => Ok(()),
            Err(error) => {
                *touched = false;
                Err(error)
            }
        }
    }
}

/// Takes in a message; the last of a transaction gives the whole.
fn read(message: Message<'_>, watched: &Watched, touched: &mut bool) -> Result<Option<TransactionEvent>> {
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
        *touched |= watched.is_touched(*family, kind, table.unwrap_or_default(), chain.unwrap_or_default());
        return Ok(None);
    }
    let mut event = TransactionEvent { is_relevant: std::mem::take(touched), ..TransactionEvent::default() };
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
    /// Whether a change of an object is one of it. `chain` is given for chains and rules.
    fn is_touched(&self, family: u8, kind: u8, table: &[u8], chain: &[u8]) -> bool {
        match self {
            Watched::Table(name) => table == name.as_bytes(),
            Watched::Chains(prefix) => {
                let families = [TableFamily::Ip as u8, TableFamily::Ip6 as u8];
                let of_tools = families.contains(&family) && IPTABLES.iter().any(|t| table == t.as_bytes());
                let built_in = || BUILT_IN.iter().any(|name| chain == name.as_bytes());
                let touches = match kind {
                    m::DELTABLE => true,
                    m::NEWCHAIN | m::DELCHAIN | m::NEWRULE => chain.starts_with(prefix.as_bytes()),
                    m::DELRULE => chain.starts_with(prefix.as_bytes()) || built_in(),
                    _ => false,
                };
                of_tools && touches
            }
        }
    }
}

fn text<'a>(attribute: Attribute<'a>) -> &'a [u8] {
    attribute.payload.strip_suffix(&[0]).unwrap_or(attribute.payload)
}
