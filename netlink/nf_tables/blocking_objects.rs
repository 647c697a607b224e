//! Objects of other processes that block all packets in a table, removed before its desired contents are known.
//!
//! A daemon that starts knows the contents of its table only after it has read the cluster's objects from the API server. A
//! rule `drop` in its table that another process added while it was down would keep it from doing so.

use std::sync::Arc;

use super::data::Verdict;
use super::dump;
use super::expression::Expression;
use super::rule::Rule;
use super::table::Table;
use super::transaction::Transaction;
use crate::error::Result;
use crate::socket::Socket;

const ACTION: &str = "remove blocking objects from an nf_tables table";

/// The name of the expression that passes packets to a queue.
const QUEUE: &str = "queue";

/// Expressions that this program never writes and that neither match nor end a rule. A log without a group is one of them.
const WITHOUT_MATCH: [&str; 2] = ["log", "last"];

/// The prefix of the names of anonymous chains, which this program does not use.
const ANONYMOUS: &str = "__chain";

/// Removes from the kernel's table the objects that can block all packets and that this program never writes, and returns
/// their descriptions:
///
/// - rules without a match that drop, reject or queue, in the chains of `base` and in base chains that `base` lacks;
/// - base chains with another policy than accept: those of `base` get the policy accept, all other ones are deleted;
/// - elements of sets that [`Element`](super::Element) cannot express, such as catch-all elements.
///
/// `base` is the table without the cluster's objects. All other contents stay, whatever they are.
///
/// # Errors
/// The table cannot be read, or the kernel rejects the changes.
pub fn remove_blocking_objects(socket: &mut Socket, base: &Table) -> Result<Vec<String>> {
    let Some((mut found, unknown_objects)) = dump::read(socket, base.family, &base.name)? else {
        return Ok(Vec::new());
    };
    let mut removed = Vec::new();
    for object in unknown_objects {
        let Some(chain) = object.strip_prefix("chain ") else { continue };
        let mut transaction = Transaction::new(ACTION, base.family, &base.name)?;
        match base.chains.get(chain) {
            Some(own) if own.base.is_some() => transaction.add_chain(chain, own)?,
            _ => transaction.delete_chain(chain)?,
        }
        match transaction.commit(socket) {
            Ok(()) => removed.push(object),
            // For example a chain that a rule jumps to.
            Err(error) => tracing::debug!(%error, object, "cannot remove an object of another process"),
        }
    }
    let changed = remove_from(&mut found, base, &mut removed);
    let mut transaction = Transaction::new(ACTION, base.family, &base.name)?;
    for name in &changed.sets {
        let set = &found.sets[name];
        transaction.flush_set(name)?;
        transaction.add_elements(name, &set.spec, &set.elements)?;
    }
    for name in &changed.chains {
        transaction.flush_chain(name)?;
        found.chains[name].rules.iter().try_for_each(|rule| transaction.add_rule(name, rule))?;
    }
    transaction.commit(socket)?;
    Ok(removed)
}

/// The names of the objects whose contents changed.
#[derive(Debug, Default)]
struct Changed {
    chains: Vec<Arc<str>>,
    sets: Vec<Arc<str>>,
}

/// Removes the rules and elements that block all packets from a table, and adds their descriptions to `removed`.
fn remove_from(table: &mut Table, base: &Table, removed: &mut Vec<String>) -> Changed {
    let mut changed = Changed::default();
    for (name, chain) in &mut table.chains {
        let own: &[Rule] = match base.chains.get(name) {
            Some(own) => &own.rules,
            // A chain of Services or policies, which may drop the packets of some of them.
            None if chain.base.is_none() => continue,
            None => &[],
        };
        let before = removed.len();
        let blocking = chain.rules.iter().filter(|rule| blocks_all(rule) && !own.contains(rule));
        removed.extend(blocking.map(|rule| format!("rule of chain {name}: {rule}")));
        if removed.len() > before {
            // A rule with an unknown expression cannot be written again.
            chain.rules.retain(|rule| own.contains(rule) || !(blocks_all(rule) || has_unknown(rule)));
            changed.chains.push(Arc::clone(name));
        }
    }
    for (name, set) in table.sets.iter_mut().filter(|(_, set)| !set.unknown.is_empty()) {
        let unknown = std::mem::take(&mut set.unknown);
        removed.extend(unknown.into_iter().map(|key| format!("element of {name}: {key}")));
        changed.sets.push(Arc::clone(name));
    }
    changed
}

/// Returns true if a rule drops, rejects or queues every packet, or passes every packet to an anonymous chain.
fn blocks_all(rule: &Rule) -> bool {
    let is_anonymous = |chain: &Arc<str>| chain.starts_with(ANONYMOUS);
    let blocks = |expression: &Expression| match expression {
        Expression::Verdict(Verdict::Drop) | Expression::Reject(_) => true,
        Expression::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => is_anonymous(chain),
        Expression::Unknown(name) => name == QUEUE,
        _ => false,
    };
    let matches_all = |expression: &Expression| match expression {
        Expression::Counter
        | Expression::NamedCounter(_)
        | Expression::Log { .. }
        | Expression::SetMeta { .. }
        | Expression::Immediate { .. }
        | Expression::Notrack => true,
        Expression::Unknown(name) => WITHOUT_MATCH.contains(&&**name),
        _ => false,
    };
    let expressions = rule.expressions();
    expressions.iter().any(blocks) && expressions.iter().all(|e| blocks(e) || matches_all(e))
}

fn has_unknown(rule: &Rule) -> bool {
    rule.expressions().iter().any(|expression| matches!(expression, Expression::Unknown(_)))
}

#[cfg(test)]
mod tests {
    use super::super::expression::Reject;
    use super::super::field::CtState;
    use super::super::table::{BaseChain, Chain, ChainKind, Hook, TableFamily};
    use super::*;

    #[test]
    fn rules_that_block_all_packets() {
        let rows = [
            (Rule::new().then(Verdict::Drop), true),
            (Rule::new().push(Expression::Counter).then(Verdict::Drop), true),
            (Rule::new().reject(Reject::IcmpPortUnreachable(crate::Family::V4)), true),
            (Rule::new().push(Expression::Unknown(QUEUE.into())), true),
            (Rule::new().then(Verdict::jump("__chain7")), true),
            (Rule::new().then(Verdict::jump("services")), false),
            (Rule::new().then(Verdict::Accept), false),
            (Rule::new().protocol(6).then(Verdict::Drop), false),
            (Rule::new().ct_state(CtState::NEW).then(Verdict::Drop), false),
            (Rule::new().push(Expression::Unknown("log".into())).then(Verdict::Drop), true),
            (Rule::new().push(Expression::Unknown("socket".into())).then(Verdict::Drop), false),
            (Rule::new(), false),
        ];
        for (rule, expected) in rows {
            assert_eq!(blocks_all(&rule), expected, "{rule}");
        }
    }

    #[test]
    fn only_foreign_rules_of_shared_chains_are_removed() {
        let drop = || Rule::new().then(Verdict::Drop);
        let base = Some(BaseChain { kind: ChainKind::Filter, hook: Hook::Input, priority: 0 });
        let mut own = Table::new(TableFamily::Ip, "test");
        own.chains.insert("shared".into(), Chain::new(vec![Rule::new().protocol(6).then(Verdict::Accept)]));
        own.chains.insert("denied".into(), Chain::new(vec![drop()]));
        let mut found = own.clone();
        let shared = found.chains.get_mut("shared").expect("it was added");
        shared.rules.insert(0, drop());
        shared.rules.push(Rule::new().protocol(17).then(Verdict::Drop));
        found.chains.insert("of-a-policy".into(), Chain::new(vec![drop()]));
        found.chains.insert("foreign".into(), Chain { base, ..Chain::new(vec![drop()]) });
        let mut removed = Vec::new();
        let mut kept = found.clone();
        let changed = remove_from(&mut kept, &own, &mut removed);
        assert_eq!(removed, ["rule of chain foreign: drop", "rule of chain shared: drop"]);
        let rules = |chain: &str| kept.chains[chain].rules.len();
        assert_eq!([rules("shared"), rules("denied"), rules("of-a-policy"), rules("foreign")], [2, 1, 1, 0]);
        assert_eq!((changed.chains, changed.sets), (vec!["foreign".into(), "shared".into()], vec![]));
    }
}
