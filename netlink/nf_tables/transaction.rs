//! Atomic transactions on one table.

use std::borrow::Borrow;
use std::sync::Arc;

use super::comment::{self, COMMENT, SET_COMMENT};
use super::constants::{OBJECT_COUNTER, attributes as a, messages as m};
use super::data::Data;
use super::element::{Element, ElementData, Key, end_of_range};
use super::expression::Expression;
use super::own_commits;
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
pub(super) const APPEND: u16 = libc::NLM_F_APPEND as u16;
/// `NFT_SET_ELEM_INTERVAL_END`.
pub(super) const INTERVAL_END: u32 = 1;
/// `NFT_TABLE_F_OWNER`.
const TABLE_OWNER: u32 = 2;
/// `NF_ACCEPT`, as a base chain's policy.
const POLICY_ACCEPT: u32 = 1;

/// The bytes of elements in one message: an attribute has at most 64 KiB, and an element has less than 1 KiB.
const ELEMENT_BYTES: usize = 60 << 10;

/// Waits until the kernel has no running commit in the network namespace of `socket`: an empty batch takes its lock.
pub(super) fn wait_for_running_commit(socket: &mut Socket) -> Result<()> {
    let mut empty = Transaction::new("wait for a running commit", TableFamily::Inet, "")?;
    empty.push_delimiter(NFNL_MSG_BATCH_END)?;
    socket.send_without_response(empty.action, &mut empty.batch)
}

/// A batch of changes to one table that the kernel applies atomically. Each method appends a change; the objects that it
/// names must exist in the kernel or earlier in the transaction. [`Transaction::commit`] sends the batch.
#[derive(Debug)]
pub struct Transaction {
    action: &'static str,
    family: TableFamily,
    table: Arc<str>,
    batch: Batch,
    /// The ID of the next new set (`NFTA_SET_ID`), unique in the transaction.
    next_set_id: u32,
}

impl Transaction {
    /// Returns an empty transaction. `action` completes "cannot …" in errors.
    ///
    /// # Errors
    /// None in practice: the first message is short.
    pub fn new(action: &'static str, family: TableFamily, table: &str) -> Result<Self> {
        let mut transaction =
            Transaction { action, family, table: table.into(), batch: Batch::new(), next_set_id: 1 };
        transaction.push_delimiter(NFNL_MSG_BATCH_BEGIN)?;
        Ok(transaction)
    }

    /// Returns the number of changes.
    pub fn len(&self) -> usize {
        self.batch.len() as usize - 1
    }

    /// Returns true if there are no changes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the size of the batch in bytes.
    pub fn size(&self) -> usize {
        self.batch.size()
    }

    /// Adds the table unless it exists.
    ///
    /// # Errors
    /// [`Error::AttributeTooLong`] if a change is too large for a message, as for all methods below.
    pub fn add_table(&mut self, comment: Option<&str>) -> Result<()> {
        self.push(m::NEWTABLE, CREATE, a::TABLE_NAME, |message| {
            comment::write(message, a::TABLE_USERDATA, COMMENT, comment);
        })
    }

    /// Adds the table unless it exists, owned by the socket that commits the transaction: the kernel removes the table when the
    /// socket is closed, and rejects changes of other processes. Linux 5.12 and later.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn add_owned_table(&mut self, comment: Option<&str>) -> Result<()> {
        self.push(m::NEWTABLE, CREATE, a::TABLE_NAME, |message| {
            message.u32_be(a::TABLE_FLAGS, TABLE_OWNER);
            comment::write(message, a::TABLE_USERDATA, COMMENT, comment);
        })
    }

    /// Deletes the table with its contents.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn delete_table(&mut self) -> Result<()> {
        self.push(m::DELTABLE, 0, a::TABLE_NAME, |_| ())
    }

    /// Adds a chain without rules.
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

    /// Deletes a chain with its rules. No rule or element may jump to it.
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

    /// Adds a set or map without elements.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn add_set(&mut self, name: &str, spec: &SetSpec) -> Result<()> {
        let id = self.next_set_id;
        self.next_set_id += 1;
        self.push(m::NEWSET, CREATE, a::SET_TABLE, |message| {
            message.text(a::SET_NAME, name).u32_be(a::SET_FLAGS, flags::of_spec(spec));
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
            message.nested(a::SET_DESC, |description| write_description(spec, description));
            comment::write(message, a::SET_USERDATA, SET_COMMENT, spec.comment.as_deref());
            if spec.counter {
                Expression::Counter.write_as(a::SET_EXPR, message);
            }
        })
    }

    /// Deletes a set or map. No rule may use it.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn delete_set(&mut self, name: &str) -> Result<()> {
        self.push(m::DELSET, 0, a::SET_TABLE, |message| {
            message.text(a::SET_NAME, name);
        })
    }

    /// Adds elements. Existing ones with the same data are kept.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn add_elements<K: Borrow<Key>, E: Borrow<Element>>(
        &mut self,
        set: &str,
        spec: &SetSpec,
        elements: impl IntoIterator<Item = (K, E)>,
    ) -> Result<()> {
        self.elements(m::NEWSETELEM, CREATE, set, spec, elements)
    }

    /// Deletes elements by their keys.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn delete_elements<K: Borrow<Key>, E: Borrow<Element>>(
        &mut self,
        set: &str,
        spec: &SetSpec,
        elements: impl IntoIterator<Item = (K, E)>,
    ) -> Result<()> {
        self.elements(m::DELSETELEM, 0, set, spec, elements)
    }

    fn elements<K: Borrow<Key>, E: Borrow<Element>>(
        &mut self,
        message: u8,
        flags: u16,
        set: &str,
        spec: &SetSpec,
        elements: impl IntoIterator<Item = (K, E)>,
    ) -> Result<()> {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            self.push(message, flags, a::ELEMENTS_TABLE, |out| {
                out.text(a::ELEMENTS_SET, set);
                out.nested(a::ELEMENTS, |list| {
                    let start = list.written();
                    while list.written() - start < ELEMENT_BYTES {
                        let Some((key, element)) = elements.next() else { break };
                        write_element(list, spec, key.borrow(), element.borrow());
                    }
                });
            })?;
        }
        Ok(())
    }

    /// Deletes all elements of a set, known and unknown.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn flush_set(&mut self, set: &str) -> Result<()> {
        self.push(m::DELSETELEM, 0, a::ELEMENTS_TABLE, |message| {
            message.text(a::ELEMENTS_SET, set);
        })
    }

    /// Adds a named counter unless it exists.
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

    /// Deletes a named counter. No rule may use it.
    ///
    /// # Errors
    /// As [`Transaction::add_table`].
    pub fn delete_counter(&mut self, name: &str) -> Result<()> {
        self.push(m::DELOBJ, 0, a::OBJ_TABLE, |message| {
            message.text(a::OBJ_NAME, name).u32_be(a::OBJ_TYPE, OBJECT_COUNTER);
        })
    }

    /// Appends a change. `table` is the attribute that has the name of the table.
    pub(super) fn push(
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

    /// Sends the transaction and waits for the result.
    ///
    /// # Errors
    /// [`Error::Object`] with the first change that the kernel rejects; then it applies none. [`Error::Rejected`] if it
    /// rejects the batch as a whole.
    pub fn commit(mut self, socket: &mut Socket) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let last = self.batch.len() - 1;
        self.push_delimiter(NFNL_MSG_BATCH_END)?;
        own_commits::count(|| self.send(socket, last))
    }

    /// Has the kernel validate the transaction without applying it.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub fn check(mut self, socket: &mut Socket) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        // The kernel validates and then aborts a batch without NFNL_MSG_BATCH_END.
        let last = self.batch.len() - 1;
        self.send(socket, last)
    }

    fn send(&mut self, socket: &mut Socket, last: u32) -> Result<()> {
        // Kernels before 6.10 do not acknowledge NFNL_MSG_BATCH_END, so request an ACK for the last change.
        self.batch.add_flags(last, ACK);
        socket.transact_framed(self.action, &mut self.batch, last).map_err(|(position, error)| {
            match self.batch.message(position) {
                Some(message) if position > 0 => rejected_object::name_object(message, error),
                _ => error,
            }
        })
    }

    fn push_delimiter(&mut self, kind: u16) -> Result<()> {
        self.batch.push(self.action, kind, 0, |message| {
            message.netfilter_resource(libc::AF_UNSPEC as u8, Subsystem::NfTables as u16);
        })
    }
}

fn write_description(spec: &SetSpec, description: &mut Writer<'_>) {
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
    /// Adds the nf_tables object that was rejected.
    pub(super) fn with_object(self, object: String) -> Self {
        Error::Object { object, source: Box::new(self) }
    }
}
