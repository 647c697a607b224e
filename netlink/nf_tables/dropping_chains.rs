//! Base chains that drop packets which none of their rules accepts.

use std::collections::BTreeSet;

use super::constants::{attributes as a, messages as m};
use super::data::Verdict;
use super::decode_object::{decode_rule_body, find, number, text};
use super::dump::{list, one};
use super::expression::Expression;
use super::table::{Hook, TableFamily};
use crate::attribute::{Attributes, Malformed};
use crate::error::{Error, Result};
use crate::socket::Socket;

/// A base chain that drops packets which none of its rules accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppingChain {
    /// The family of its table.
    pub family: TableFamily,
    /// The name of its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The hook; `None` for one that [`Hook`] does not have.
    pub hook: Option<Hook>,
    /// Its priority at the hook.
    pub priority: i32,
}

const FAMILIES: [TableFamily; 4] =
    [TableFamily::Ip, TableFamily::Ip6, TableFamily::Inet, TableFamily::Bridge];

/// The tables of the iptables tools, which have base chains of known names only.
const IPTABLES_TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

/// The base chains of the iptables tools that may have a policy.
const IPTABLES_CHAINS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// Returns the base chains with the policy `drop`, except those of tables for which `is_own` is true.
///
/// The kernel lists chains of whole families only. The tables of the iptables tools may have a chain for each Service and
/// endpoint, so their base chains are requested by name; families without other tables are not listed.
///
/// # Errors
/// As [`read`](super::read).
pub fn dropping_chains(socket: &mut Socket, is_own: impl Fn(&str) -> bool) -> Result<Vec<DroppingChain>> {
    let mut chains = base_chains(socket, is_own)?;
    chains.retain(|(_, policy)| *policy == Some(libc::NF_DROP as u32));
    Ok(chains.into_iter().map(|(chain, _)| chain).collect())
}

/// Returns the base chains at a hook whose last rule drops or rejects all packets, whatever their policies, except those of tables for
/// which `is_own` is true, and those of the iptables tools.
///
/// # Errors
/// As [`read`](super::read).
pub fn chains_that_end_with_a_drop(
    socket: &mut Socket,
    hook: Hook,
    is_own: impl Fn(&str) -> bool,
) -> Result<Vec<DroppingChain>> {
    let mut chains = base_chains(socket, |table| is_own(table) || IPTABLES_TABLES.contains(&table))?;
    chains.retain(|(chain, _)| chain.hook == Some(hook));
    let mut ending = Vec::new();
    for (chain, _) in chains {
        let mut last = None;
        let request = |out: &mut crate::attribute::Writer<'_>| {
            out.text(a::RULE_TABLE, &chain.table).text(a::RULE_CHAIN, &chain.name);
        };
        let listed = list(socket, chain.family, m::GETRULE, request, |rule| {
            // Old kernels list the rules of all chains.
            let is_of_chain = text(rule, a::RULE_TABLE)?.as_deref() == Some(&*chain.table)
                && text(rule, a::RULE_CHAIN)?.as_deref() == Some(&*chain.name);
            if is_of_chain {
                last = decode_rule_body(rule).ok();
            }
            Ok(())
        });
        match listed {
            // It was deleted meanwhile.
            Err(Error::Interrupted { .. }) => continue,
            listed => listed?,
        }
        if last.is_some_and(|rule| drops_all(rule.expressions())) {
            ending.push(chain);
        }
    }
    Ok(ending)
}

/// Returns true for a rule without matches that drops or rejects.
fn drops_all(expressions: &[Expression]) -> bool {
    let mut effect = expressions
        .iter()
        .filter(|expression| !matches!(expression, Expression::Counter | Expression::Log { .. }));
    let is_final = match effect.next() {
        Some(Expression::Verdict(Verdict::Drop) | Expression::Reject(_)) => true,
        // A rejection of a form that this program does not write.
        Some(Expression::Unknown(name)) => name == "reject",
        _ => false,
    };
    is_final && effect.next().is_none()
}

/// Returns all base chains, with their policies.
fn base_chains(
    socket: &mut Socket,
    is_own: impl Fn(&str) -> bool,
) -> Result<Vec<(DroppingChain, Option<u32>)>> {
    let mut found = Vec::new();
    for family in FAMILIES {
        let mut tables = BTreeSet::new();
        let listed = list(
            socket,
            family,
            m::GETTABLE,
            |_| (),
            |table| {
                tables.extend(text(table, a::TABLE_NAME)?);
                Ok(())
            },
        );
        match listed {
            // The kernel has no tables of this family.
            Err(error) if matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)) => continue,
            listed => listed?,
        }
        let is_of_iptables = |table: &str| {
            matches!(family, TableFamily::Ip | TableFamily::Ip6) && IPTABLES_TABLES.contains(&table)
        };
        tables.retain(|table| !is_own(table));
        for table in tables.iter().filter(|table| is_of_iptables(table)) {
            for name in IPTABLES_CHAINS {
                let request = |out: &mut crate::attribute::Writer<'_>| {
                    out.text(a::CHAIN_TABLE, table).text(a::CHAIN_NAME, name);
                };
                match one(socket, family, m::GETCHAIN, request, |chain| add(chain, family, &mut found)) {
                    Err(error) if error.errno() == Some(libc::ENOENT) => {}
                    done => done?,
                }
            }
        }
        let others: BTreeSet<&str> =
            tables.iter().map(String::as_str).filter(|table| !is_of_iptables(table)).collect();
        if !others.is_empty() {
            list(
                socket,
                family,
                m::GETCHAIN,
                |_| (),
                |chain| {
                    let table = text(chain, a::CHAIN_TABLE)?.unwrap_or_default();
                    if others.contains(table.as_str()) { add(chain, family, &mut found) } else { Ok(()) }
                },
            )?;
        }
    }
    found.sort_by(|(a, _), (b, _)| (a.family, &a.table, &a.name).cmp(&(b.family, &b.table, &b.name)));
    Ok(found)
}

/// Adds a chain with its policy if it is a base chain.
fn add(
    chain: &Attributes<'_>,
    family: TableFamily,
    found: &mut Vec<(DroppingChain, Option<u32>)>,
) -> Result<(), Malformed> {
    let Some(hook) = find(chain, a::CHAIN_HOOK)? else { return Ok(()) };
    let policy = number(chain, a::CHAIN_POLICY)?;
    let hook = hook.nested();
    let chain = DroppingChain {
        family,
        table: text(chain, a::CHAIN_TABLE)?.unwrap_or_default(),
        name: text(chain, a::CHAIN_NAME)?.unwrap_or_default(),
        hook: number(&hook, a::HOOK_NUMBER)?.and_then(Hook::from_number),
        priority: number(&hook, a::HOOK_PRIORITY)?.unwrap_or_default() as i32,
    };
    found.push((chain, policy));
    Ok(())
}
