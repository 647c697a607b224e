//! Listing of a table's rules with their handles, also of tables that another process has written.

use super::constants::{attributes as a, messages as m};
use super::decode_object::{decode_rule_body, find, text};
use super::packet_trace::TraceFamily;
use super::rule::Rule;
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
    mut each: impl FnMut(ListedRule),
) -> Result<()> {
    let kind = netfilter::kind(Subsystem::NfTables, m::GETRULE);
    let mut request = Batch::with_message(ACTION, kind, 0, |message| {
        message.netfilter_resource(family.0, 0).text(a::RULE_TABLE, table);
    })?;
    let listed = socket.dump(ACTION, &mut request, |message| {
        let ([of, ..], found) = message.split::<{ netfilter::HEADER }>().during(ACTION)?;
        // Before Linux 5.x, dumps of rules ignore the name of the table.
        if *of != family.0 || text(&found, a::RULE_TABLE).during(ACTION)?.as_deref() != Some(table) {
            return Ok(());
        }
        let chain = text(&found, a::RULE_CHAIN).during(ACTION)?.unwrap_or_default();
        let handle = find(&found, a::RULE_HANDLE).during(ACTION)?;
        let handle = handle.and_then(|handle| handle.u64_be().ok()).unwrap_or_default();
        if let Ok(rule) = decode_rule_body(&found) {
            each(ListedRule { chain, handle, rule });
        }
        Ok(())
    });
    match listed {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
        listed => listed,
    }
}
