//! Rules with their handles, also of tables that another process has written: listing, and deletion by handle.

use super::constants::{attributes as a, messages as m};
use super::decode_object::{decode_rule_body, find, text};
use super::packet_trace::TraceFamily;
use super::rule::Rule;
use super::table::TableFamily;
use super::transaction::Transaction;
use crate::error::{During, Result};
use crate::message::Batch;
use crate::netfilter::{self, Subsystem};
use crate::socket::Socket;

const ACTION: &str = "list nf_tables rules";

/// A rule as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRule {
    /// Its chain.
    pub chain: String,
    /// Its handle, unique in its table.
    pub handle: u64,
    /// Its expressions; those that this program never writes are [`Expression::Unknown`].
    ///
    /// [`Expression::Unknown`]: super::Expression::Unknown
    pub rule: Rule,
}

/// Passes each rule of a table to `each`, except rules that cannot be decoded. There are none if there is no such table.
///
/// # Errors
/// [`Error::Rejected`] with `EPERM` without CAP_NET_ADMIN; [`Error::Interrupted`] if the rules changed during the dump.
///
/// [`Error::Rejected`]: crate::Error::Rejected
/// [`Error::Interrupted`]: crate::Error::Interrupted
pub fn list_rules(
    socket: &mut Socket,
    family: TraceFamily,
    table: &str,
    each: impl FnMut(ListedRule),
) -> Result<()> {
    list(socket, family, table, None, each)
}

/// Returns the rules of one chain in order. A rule that cannot be decoded has no expressions. There are none if there is no such
/// chain.
///
/// # Errors
/// As [`list_rules`].
pub fn rules_of_chain(
    socket: &mut Socket,
    family: TableFamily,
    table: &str,
    chain: &str,
) -> Result<Vec<ListedRule>> {
    let mut rules = Vec::new();
    list(socket, TraceFamily(family as u8), table, Some(chain), |rule| rules.push(rule))?;
    Ok(rules)
}

fn list(
    socket: &mut Socket,
    family: TraceFamily,
    table: &str,
    of_chain: Option<&str>,
    mut each: impl FnMut(ListedRule),
) -> Result<()> {
    let kind = netfilter::kind(Subsystem::NfTables, m::GETRULE);
    let mut request = Batch::with_message(ACTION, kind, 0, |message| {
        message.netfilter_resource(family.0, 0).text(a::RULE_TABLE, table);
        if let Some(chain) = of_chain {
            message.text(a::RULE_CHAIN, chain);
        }
    })?;
    let listed = socket.dump(ACTION, &mut request, |message| {
        let ([of, ..], found) = message.split::<{ netfilter::HEADER }>().during(ACTION)?;
        // Before Linux 5.x, dumps of rules ignore the name of the table.
        if *of != family.0 || text(&found, a::RULE_TABLE).during(ACTION)?.as_deref() != Some(table) {
            return Ok(());
        }
        let chain = text(&found, a::RULE_CHAIN).during(ACTION)?.unwrap_or_default();
        if of_chain.is_some_and(|wanted| wanted != chain) {
            return Ok(());
        }
        let handle = find(&found, a::RULE_HANDLE).during(ACTION)?;
        let handle = handle.and_then(|handle| handle.u64_be().ok()).unwrap_or_default();
        match decode_rule_body(&found) {
            Ok(rule) => each(ListedRule { chain, handle, rule }),
            Err(_) if of_chain.is_some() => each(ListedRule { chain, handle, rule: Rule::new() }),
            Err(_) => {}
        }
        Ok(())
    });
    match listed {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
        listed => listed,
    }
}

/// Deletes rules of a table in one transaction, each given by its chain and handle.
///
/// # Errors
/// As [`Transaction::commit`]: `ENOENT` if one of them does not exist. Then none is deleted.
pub fn delete_rules<'r>(
    socket: &mut Socket,
    family: TableFamily,
    table: &str,
    rules: impl IntoIterator<Item = (&'r str, u64)>,
) -> Result<()> {
    let mut transaction = Transaction::new("delete nf_tables rules", family, table)?;
    for (chain, handle) in rules {
        transaction.push(m::DELRULE, 0, a::RULE_TABLE, |message| {
            message.text(a::RULE_CHAIN, chain).u64_be(a::RULE_HANDLE, handle);
        })?;
    }
    transaction.commit(socket)
}
