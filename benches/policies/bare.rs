//! Baseline: one nf_tables transaction with the same objects, without computing them.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_netlink::nf_tables::{self, Chain, Element, Key, SetSpec, Table, Transaction};
use portcullis_netlink::socket::Socket;

use super::figures::{Spent, Watch};
use super::namespace::Namespace;

/// Elements of one set.
type Elements = (Arc<str>, SetSpec, Vec<(Key, Element)>);

/// Operations that turn one version of a table into another.
pub(crate) struct Bare {
    table: Table,
    is_new: bool,
    new_counters: Vec<(Arc<str>, Option<Arc<str>>)>,
    new_sets: Vec<(Arc<str>, SetSpec)>,
    new_chains: Vec<(Arc<str>, Chain)>,
    removed: Vec<Elements>,
    added: Vec<Elements>,
    changed_chains: Vec<(Arc<str>, Chain)>,
    old_sets: Vec<Arc<str>>,
    old_chains: Vec<Arc<str>>,
    old_counters: Vec<Arc<str>>,
}

/// Returns the entries of a map that are missing in another one.
fn missing<T: Clone>(all: &BTreeMap<Arc<str>, T>, there: &BTreeMap<Arc<str>, T>) -> Vec<(Arc<str>, T)> {
    let missing = all.iter().filter(|(name, _)| !there.contains_key(*name));
    missing.map(|(name, value)| (Arc::clone(name), value.clone())).collect()
}

fn names<T>(all: Vec<(Arc<str>, T)>) -> Vec<Arc<str>> {
    all.into_iter().map(|(name, _)| name).collect()
}

impl Bare {
    /// Computes the operations between two versions; `None` means no table.
    pub(crate) fn between(before: Option<&Table>, after: &Table) -> Bare {
        let nothing = Table::new(after.family, &after.name);
        let (is_new, before) = (before.is_none(), before.unwrap_or(&nothing));
        let changed = |(name, chain): &(&Arc<str>, &Chain)| {
            before.chains.get(*name).is_some_and(|there| there.rules != chain.rules)
        };
        let elements = |of: &Table, other: &Table, new_too: bool| {
            let differing = of.sets.iter().filter_map(|(name, set)| {
                let there = other.sets.get(name);
                if there.is_none() && !new_too {
                    return None;
                }
                let is_there = |key: &Key, element: &Element| {
                    there.is_some_and(|set| set.elements.get(key).as_ref() == Some(element))
                };
                let lacking: Vec<_> =
                    set.elements.iter().filter(|(key, element)| !is_there(key, element)).collect();
                (!lacking.is_empty()).then(|| (Arc::clone(name), set.spec.clone(), lacking))
            });
            differing.collect::<Vec<Elements>>()
        };
        let new_sets = missing(&after.sets, &before.sets);
        Bare {
            table: Table { comment: after.comment.clone(), ..nothing.clone() },
            is_new,
            new_counters: missing(&after.counters, &before.counters),
            new_sets: new_sets.into_iter().map(|(name, set)| (name, set.spec)).collect(),
            new_chains: missing(&after.chains, &before.chains),
            removed: elements(before, after, false),
            added: elements(after, before, true),
            changed_chains: after
                .chains
                .iter()
                .filter(changed)
                .map(|(name, chain)| (Arc::clone(name), chain.clone()))
                .collect(),
            old_sets: names(missing(&before.sets, &after.sets)),
            old_chains: names(missing(&before.chains, &after.chains)),
            old_counters: names(missing(&before.counters, &after.counters)),
        }
    }

    /// Returns the number of added and removed elements.
    pub(crate) fn elements(&self) -> usize {
        self.removed.iter().chain(&self.added).map(|(_, _, elements)| elements.len()).sum()
    }

    /// Writes the transaction. Measures from building the messages to the kernel's response.
    pub(crate) fn send(&self, socket: &mut Socket) -> Spent {
        let watch = Watch::start();
        let transaction = self.transaction().expect("every object fits into a message");
        transaction
            .commit(socket)
            .unwrap_or_else(|error| panic!("the kernel rejected the transaction: {error}"));
        watch.spent()
    }

    fn transaction(&self) -> portcullis_netlink::Result<Transaction> {
        let mut to = Transaction::new("measure", self.table.family, &self.table.name)?;
        if self.is_new {
            to.add_table(self.table.comment.as_deref())?;
        }
        for (name, comment) in &self.new_counters {
            to.add_counter(name, comment.as_deref())?;
        }
        for (name, spec) in &self.new_sets {
            to.add_set(name, spec)?;
        }
        for (name, chain) in &self.new_chains {
            to.add_chain(name, chain)?;
        }
        for (name, spec, elements) in &self.removed {
            to.delete_elements(name, spec, elements.iter().map(|(key, element)| (key, element)))?;
        }
        for (name, spec, elements) in &self.added {
            to.add_elements(name, spec, elements.iter().map(|(key, element)| (key, element)))?;
        }
        self.changed_chains.iter().try_for_each(|(name, _)| to.flush_chain(name))?;
        for (name, chain) in self.new_chains.iter().chain(&self.changed_chains) {
            chain.rules.iter().try_for_each(|rule| to.add_rule(name, rule))?;
        }
        self.old_chains.iter().try_for_each(|name| to.flush_chain(name))?;
        self.old_sets.iter().try_for_each(|name| to.delete_set(name))?;
        self.old_chains.iter().try_for_each(|name| to.delete_chain(name))?;
        self.old_counters.iter().try_for_each(|name| to.delete_counter(name))?;
        Ok(to)
    }
}

/// Opens an nf_tables socket in a namespace.
pub(crate) fn socket(namespace: &Namespace) -> Socket {
    let open = namespace.run(nf_tables::open);
    open.expect("runs as root").expect("this kernel has nf_tables")
}
