//! Changes of the rule set that happen together or not at all.

use std::sync::Arc;

use super::comment::{self, COMMENT, SET_COMMENT};
use super::constants::{OBJECT_COUNTER, attributes as a, messages as m};
use super::data::Data;
use super::element::{Element, ElementData, Key, end_of_range};
use super::rejected_object;
use super::rule::Rule;
use super::set::{SetSpec, type_number};
use super::set_flags as flags;
use super::table::{Chain, TableFamily};
use crate::attribute::Writer;
use crate::error::{Error, Result};
use crate::message::{ACK, Batch, CREATE};
use crate::netfilter::{self, Subsystem};
use crate::socket::Socket;

const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
/// `NLM_F_APPEND`: a rule comes after those that are there.
const APPEND: u16 = libc::NLM_F_APPEND as u16;
/// `NFT_SET_ELEM_INTERVAL_END`.
pub(super) const INTERVAL_END: u32 = 1;
/// `NF_ACCEPT`, as a base chain's policy.
const POLICY_ACCEPT: u32 = 1;

/// So many bytes of elements go into one message: an attribute ends at 64 KiB, and the largest element with a
/// comment is far below 1 KiB.
const ELEMENT_BYTES: usize = 60 << 10;

/// Changes of one table that happen together or not at all. Each method appends one; what it names must be there by
/// then, in the kernel or earlier in the transaction. Nothing is sent before [`Transaction::commit`].
#[derive(Debug)]
pub struct Transaction {
    action: &'static str,
    family: TableFamily,
    table: Arc<str>,
    batch: Batch,
    /// The number of the next set that is made: unique in the transaction.
    next_set: u32,
}

impl Transaction {
    /// An empty one. `action` completes "cannot …".
    ///
    /// # Errors
    /// None in practice: the frame is short.
    pub fn new(action: &'static str, family: TableFamily, table: &str) -> Result<Self> {
        let mut transaction =
            Transaction { action, family, table: table.into(), batch: Batch::new(), next_set: 1 };
        transaction.frame(NFNL_MSG_BATCH_BEGIN)?;
        Ok(transaction)
    }

    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.batch.len() as usize - 1
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What would be sent, in bytes.
    pub fn size(&self) -> usize {
        self.batch.size()
    }

    /// Makes the table, if it is not there.
    ///
    /// # Errors
    /// [`Error::AttributeTooLong`] for a change that is too large for a message, as for all methods below.
    pub fn add_table(&mut self, comment: Option<&str>) -> Result<()> {
        self.push(m::NEWTABLE, CREATE, a::TABLE_NAME, |message| {
            comment::write(message, a::TABLE_USERDATA, COMMENT, comment);
        })
    }

    /// Deletes the table with all that is in it.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn delete_table(&mut self) -> Result<()> {
        self.push(m::DELTABLE, 0, a::TABLE_NAME, |_| ())
    }

    /// Makes a chain without rules.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn add_chain(&mut self, name: &str, chain: &Chain) -> Result<()> {
        self.push(m::NEWCHAIN, CREATE, a::CHAIN_TABLE, |message| {
            message.text(a::CHAIN_NAME, name);
            if let Some(base) = chain.base {
                message.nested(a::CHAIN_HOOK, |hook| {
                    hook.u32_be(a::HOOK_NUMBER, base.hook as u32);
                    hook.u32_be(a::HOOK_PRIORITY, base.priority as u32);
                });
                message.u32_be(a::CHAIN_POLICY, POLICY_ACCEPT).text(a::CHAIN_TYPE, base.kind.as_str());
            }
            comment::write(message, a::CHAIN_USERDATA, COMMENT, chain.comment.as_deref());
        })
    }

    /// Deletes a chain, with its rules. Nothing may lead to it any more.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn delete_chain(&mut self, name: &str) -> Result<()> {
        self.push(m::DELCHAIN, 0, a::CHAIN_TABLE, |message| {
            message.text(a::CHAIN_NAME, name);
        })
    }

    /// Deletes the rules of a chain.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn flush_chain(&mut self, name: &str) -> Result<()> {
        self.push(m::DELRULE, 0, a::RULE_TABLE, |message| {
            message.text(a::RULE_CHAIN, name);
        })
    }

    /// Appends a rule to a chain.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn add_rule(&mut self, chain: &str, rule: &Rule) -> Result<()> {
        self.push(m::NEWRULE, CREATE | APPEND, a::RULE_TABLE, |message| {
            message.text(a::RULE_CHAIN, chain);
            message.nested(a::RULE_EXPRESSIONS, |list| {
                rule.expressions().iter().for_each(|expression| expression.write(list));
            });
            comment::write(message, a::RULE_USERDATA, COMMENT, rule.comment());
        })
    }

    /// Makes a set or a map without elements.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn add_set(&mut self, name: &str, spec: &SetSpec) -> Result<()> {
        let id = self.next_set;
        self.next_set += 1;
        self.push(m::NEWSET, CREATE, a::SET_TABLE, |message| {
            message.text(a::SET_NAME, name).u32_be(a::SET_FLAGS, flags::of(spec));
            message.u32_be(a::SET_KEY_TYPE, type_number(&spec.key));
            message.u32_be(a::SET_KEY_LEN, spec.key_length() as u32);
            if spec.is_map() {
                message.u32_be(a::SET_DATA_TYPE, type_number(&spec.data));
                message.u32_be(a::SET_DATA_LEN, spec.data_length() as u32);
            }
            message.u32_be(a::SET_ID, id);
            if let Some(timeout) = spec.timeout.filter(|timeout| *timeout > 0) {
                message.u64_be(a::SET_TIMEOUT, timeout);
            }
            message.nested(a::SET_DESC, |description| describe(spec, description));
            comment::write(message, a::SET_USERDATA, SET_COMMENT, spec.comment.as_deref());
        })
    }

    /// Deletes a set or a map. No rule may use it any more.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn delete_set(&mut self, name: &str) -> Result<()> {
        self.push(m::DELSET, 0, a::SET_TABLE, |message| {
            message.text(a::SET_NAME, name);
        })
    }

    /// Adds elements. One that is there with the same data stays.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn add_elements<'e>(
        &mut self,
        set: &str,
        spec: &SetSpec,
        elements: impl IntoIterator<Item = (&'e Key, &'e Element)>,
    ) -> Result<()> {
        self.elements(m::NEWSETELEM, CREATE, set, spec, elements)
    }

    /// Deletes elements, by their keys.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn delete_elements<'e>(
        &mut self,
        set: &str,
        spec: &SetSpec,
        elements: impl IntoIterator<Item = (&'e Key, &'e Element)>,
    ) -> Result<()> {
        self.elements(m::DELSETELEM, 0, set, spec, elements)
    }

    fn elements<'e>(
        &mut self,
        message: u8,
        flags: u16,
        set: &str,
        spec: &SetSpec,
        elements: impl IntoIterator<Item = (&'e Key, &'e Element)>,
    ) -> Result<()> {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            self.push(message, flags, a::ELEMENTS_TABLE, |out| {
                out.text(a::ELEMENTS_SET, set);
                out.nested(a::ELEMENTS, |list| {
                    let start = list.written();
                    while list.written() - start < ELEMENT_BYTES {
                        let Some((key, element)) = elements.next() else { break };
                        write_element(list, spec, key, element);
                    }
                });
            })?;
        }
        Ok(())
    }

    /// Deletes all elements of a set, whatever they are.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn flush_set(&mut self, set: &str) -> Result<()> {
        self.push(m::DELSETELEM, 0, a::ELEMENTS_TABLE, |message| {
            message.text(a::ELEMENTS_SET, set);
        })
    }

    /// Makes a named counter that begins at 0, if it is not there.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn add_counter(&mut self, name: &str, comment: Option<&str>) -> Result<()> {
        self.push(m::NEWOBJ, CREATE, a::OBJ_TABLE, |message| {
            message.text(a::OBJ_NAME, name).u32_be(a::OBJ_TYPE, OBJECT_COUNTER);
            message.nested(a::OBJ_DATA, |_| ());
            comment::write(message, a::OBJ_USERDATA, COMMENT, comment);
        })
    }

    /// Deletes a named counter. No rule may use it any more.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn delete_counter(&mut self, name: &str) -> Result<()> {
        self.push(m::DELOBJ, 0, a::OBJ_TABLE, |message| {
            message.text(a::OBJ_NAME, name).u32_be(a::OBJ_TYPE, OBJECT_COUNTER);
        })
    }

    /// Appends a change; `table` is the attribute that names the table.
    fn push(
        &mut self,
        message: u8,
        flags: u16,
        table: u16,
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> Result<()> {
        let (family, name) = (self.family as u8, Arc::clone(&self.table));
        self.batch.push(self.action, netfilter::kind(Subsystem::NfTables, message), flags, |out| {
            out.netfilter_resource(family, 0).text(table, &name);
            fill(out);
        })
    }

    /// Sends it, and waits until it is done.
    ///
    /// # Errors
    /// [`Error::Object`] for the first change that the kernel refuses; none is then made. [`Error::Rejected`] if it
    /// refuses them as a whole.
    pub fn commit(mut self, socket: &mut Socket) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let last = self.batch.len() - 1;
        self.frame(NFNL_MSG_BATCH_END)?;
        self.send(socket, last)
    }

    /// Has the kernel say what it would say to [`Transaction::commit`], and changes nothing.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub fn check(mut self, socket: &mut Socket) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        // A batch without its end is looked through and given up.
        let last = self.batch.len() - 1;
        self.send(socket, last)
    }

    fn send(&mut self, socket: &mut Socket, last: u32) -> Result<()> {
        // Kernels before 6.10 never answer to the end of a batch, so the last change is asked for.
        self.batch.add_flags(last, ACK);
        socket.transact_framed(self.action, &mut self.batch, last).map_err(|(position, error)| {
            match self.batch.message(position) {
                Some(message) if position > 0 => rejected_object::name_object(message, error),
                _ => error,
            }
        })
    }

    fn frame(&mut self, kind: u16) -> Result<()> {
        self.batch.push(self.action, kind, 0, |message| {
            message.netfilter_resource(libc::AF_UNSPEC as u8, Subsystem::NfTables as u16);
        })
    }
}

fn describe(spec: &SetSpec, description: &mut Writer<'_>) {
    if let Some(size) = spec.size {
        description.u32_be(a::SET_DESC_SIZE, size);
    }
    if spec.key.len() > 1 {
        description.nested(a::SET_DESC_CONCAT, |fields| {
            for part in spec.key.iter() {
                fields.nested(a::LIST_ELEM, |field| {
                    field.u32_be(a::SET_FIELD_LEN, part.length() as u32);
                });
            }
        });
    }
}

fn write_element(list: &mut Writer<'_>, spec: &SetSpec, key: &Key, element: &Element) {
    let length = spec.key_length();
    list.nested(a::LIST_ELEM, |out| {
        Data::write_bytes(key.for_kernel(length), out, a::ELEMENT_KEY);
        if spec.has_range_elements() {
            let last = element.last.as_ref().unwrap_or(key);
            Data::write_bytes(last.for_kernel(length), out, a::ELEMENT_KEY_END);
        }
        match &element.data {
            None => {}
            Some(ElementData::Verdict(verdict)) => verdict.write(out, a::ELEMENT_DATA),
            Some(ElementData::Value(value)) => {
                Data::write_bytes(value.for_kernel(spec.data_length()), out, a::ELEMENT_DATA);
            }
        }
        if let Some(timeout) = element.timeout {
            out.u64_be(a::ELEMENT_TIMEOUT, timeout);
        }
    });
    if spec.interval && !spec.has_range_elements() {
        let Some(end) = end_of_range(key, element, spec) else { return };
        list.nested(a::LIST_ELEM, |out| {
            Data::write_bytes(end.for_kernel(length), out, a::ELEMENT_KEY);
            out.u32_be(a::ELEMENT_FLAGS, INTERVAL_END);
        });
    }
}

impl Error {
    /// Binds a refusal to the nf_tables object that it is about.
    pub(super) fn of_object(self, object: String) -> Self {
        Error::Object { object, source: Box::new(self) }
    }
}
