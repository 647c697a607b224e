//! Who else changes the rule set: nf_tables tells its listeners of every transaction.

use super::wire::{attributes as a, messages as m};
use crate::attribute::Attribute;
use crate::error::{During, Result};
use crate::message::Message;
use crate::netfilter::{self, Subsystem};
use crate::socket::{Protocol, Socket};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

const ACTION: &str = "listen to changes of nf_tables";

/// Where a message's header has the port of the socket that made the change.
const PORT_AT: u32 = 12;

/// The changes of one table that others make.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
    table: String,
    /// The transaction whose end has not come yet touches the table.
    touched: bool,
}

/// A transaction of somebody else's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// It changed something of the table.
    pub touched: bool,
    /// The process that sent it; 0 if the kernel does not say.
    pub process: u32,
    /// That process's name.
    pub name: String,
}

impl Events {
    /// Listens, in the calling thread's network namespace, to what happens to a table of this name in any family.
    /// What `own` sends is left out.
    ///
    /// # Errors
    /// [`crate::Error::Io`] for want of privilege or of nf_tables.
    pub fn listen(table: &str, own: &Socket) -> Result<Self> {
        let socket = Socket::listen(Protocol::Netfilter, &[GROUP])?;
        socket.drop_events(ACTION, PORT_AT, own.port()?)?;
        Ok(Events { socket, table: table.to_owned(), touched: false })
    }

    /// Waits for transactions of others, and gives each to `each`. Returns after every datagram.
    ///
    /// # Errors
    /// [`crate::Error::Overrun`] if some were missed: whatever was watched may have changed.
    pub fn wait(&mut self, mut each: impl FnMut(Batch)) -> Result<()> {
        self.socket.wait(ACTION)?;
        let Events { socket, table, touched } = self;
        let read = socket.events(ACTION, |message| {
            if let Some(batch) = read(message, table, touched)? {
                each(batch);
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
fn read(message: Message<'_>, table: &str, touched: &mut bool) -> Result<Option<Batch>> {
    if message.kind >> 8 != Subsystem::Tables as u16 {
        return Ok(None);
    }
    let (_, attributes) = message.split::<{ netfilter::HEADER }>().during(ACTION)?;
    if message.kind & 0xff != u16::from(m::NEWGEN) {
        // The first attribute of every object names its table.
        for attribute in attributes {
            let attribute = attribute.during(ACTION)?;
            *touched |= attribute.kind == a::TABLE_NAME && is_text(&attribute, table);
        }
        return Ok(None);
    }
    let mut batch = Batch { touched: std::mem::take(touched), ..Batch::default() };
    for attribute in attributes {
        let attribute: Attribute<'_> = attribute.during(ACTION)?;
        match attribute.kind {
            a::GEN_PROC_PID => batch.process = attribute.u32_be().during(ACTION)?,
            a::GEN_PROC_NAME => batch.name = attribute.text(),
            _ => {}
        }
    }
    Ok(Some(batch))
}

fn is_text(attribute: &Attribute<'_>, text: &str) -> bool {
    attribute.payload.strip_suffix(&[0]).unwrap_or(attribute.payload) == text.as_bytes()
}
