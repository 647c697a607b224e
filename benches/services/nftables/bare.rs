//! The reference of nftables mode: one transaction with known objects.

use std::time::Instant;

use portcullis_modes::nftables::TABLE;
use portcullis_netlink::Result;
use portcullis_netlink::nf_tables::{self, Element, Elements, Key, Set, Table, TableFamily, Transaction};
use portcullis_netlink::socket::{NetlinkProtocol, Socket};

use crate::figures::Spent;
use crate::process;

const FAMILIES: [TableFamily; 2] = [TableFamily::Ip, TableFamily::Ip6];

/// The tables of both families.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tables(Vec<Table>);

impl Tables {
    /// Reads those of the network namespace of this thread.
    pub(crate) fn read() -> Tables {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).expect("a netfilter socket");
        let mut read =
            |family| nf_tables::read(&mut socket, family, TABLE).expect("a table that can be read");
        Tables(FAMILIES.iter().filter_map(|family| read(*family)).map(|(table, _)| table).collect())
    }

    /// Returns the numbers of elements and chains.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let sets = self.0.iter().flat_map(|table| table.sets.values());
        (sets.map(|set| set.elements.len()).sum(), self.0.iter().map(|table| table.chains.len()).sum())
    }

    /// Writes all objects to the network namespace of this thread, which has none of them, one transaction per family.
    pub(crate) fn write(&self) -> Spent {
        spent(|socket| self.0.iter().try_for_each(|table| write(table, socket)))
    }
}

/// The elements that differ between two states, by table and set.
pub(crate) struct Changes(Vec<Change>);

struct Change {
    family: TableFamily,
    set: String,
    now: Set,
    gone: Vec<(Key, Element)>,
    come: Vec<(Key, Element)>,
}

impl Changes {
    pub(crate) fn between(before: &Tables, after: &Tables) -> Changes {
        let mut changes = Vec::new();
        for (old, new) in before.0.iter().zip(&after.0) {
            for (name, set) in &new.sets {
                let was = &old.sets[name].elements;
                let differing = |of: &Set, there: &Elements| -> Vec<(Key, Element)> {
                    of.elements
                        .iter()
                        .filter(|(key, element)| there.get(key).as_ref() != Some(element))
                        .collect()
                };
                let (gone, come) = (differing(&old.sets[name], &set.elements), differing(set, was));
                if !gone.is_empty() || !come.is_empty() {
                    let now = Set::new(set.spec.clone());
                    changes.push(Change { family: new.family, set: name.to_string(), now, gone, come });
                }
            }
        }
        Changes(changes)
    }

    /// Writes them to the network namespace of this thread, in one transaction.
    pub(crate) fn carry_out(&self) -> Spent {
        spent(|socket| {
            let Some(family) = self.0.first().map(|change| change.family) else { return Ok(()) };
            let mut transaction = Transaction::new("send known elements", family, TABLE)?;
            for change in &self.0 {
                let pairs = |all: &[(Key, Element)]| all.to_vec();
                let (gone, come) = (pairs(&change.gone), pairs(&change.come));
                let spec = &change.now.spec;
                transaction.delete_elements(&change.set, spec, gone.iter().map(|(key, e)| (key, e)))?;
                transaction.add_elements(&change.set, spec, come.iter().map(|(key, e)| (key, e)))?;
            }
            transaction.commit(socket)
        })
    }
}

fn write(table: &Table, socket: &mut Socket) -> Result<()> {
    let mut transaction = Transaction::new("send a known table", table.family, TABLE)?;
    transaction.add_table(table.comment.as_deref())?;
    for (name, set) in &table.sets {
        transaction.add_set(name, &set.spec)?;
    }
    for (name, chain) in &table.chains {
        transaction.add_chain(name, chain)?;
    }
    // If rules come last, the kernel visits all elements of a map for each rule that uses it.
    for (name, chain) in &table.chains {
        chain.rules.iter().try_for_each(|rule| transaction.add_rule(name, rule))?;
    }
    for (name, set) in &table.sets {
        transaction.add_elements(name, &set.spec, &set.elements)?;
    }
    transaction.commit(socket)
}

fn spent(work: impl FnOnce(&mut Socket) -> Result<()>) -> Spent {
    let mut socket = Socket::open(NetlinkProtocol::Netfilter).expect("a netfilter socket");
    let (start, used) = (Instant::now(), process::of_this_thread());
    work(&mut socket).unwrap_or_else(|error| panic!("the bare batch: {error}"));
    Spent { wall: start.elapsed(), processor: process::of_this_thread() - used }
}
