//! A table that another process changed: the next commit restores it.

use std::collections::BTreeSet;

use portcullis_cluster::Family;
use portcullis_modes::nftables;
use portcullis_netlink::nf_tables::{self, DesiredTable};
use portcullis_netlink::socket::{NetlinkProtocol, Socket};

use super::fake_nf_tables::{Attributes, FakeNfTables, RawObject, RawSet, RawTable};
use super::input::Input;
use super::nf_tables::desired_from;
use super::sample_cluster::{desired, node, options};

/// The requests that a commit may need: lists of all kinds of objects and of the elements of all sets, and transactions.
const MAX_REQUESTS: usize = 60;

/// Changes the table as the input says, and commits the desired table.
pub(crate) fn restore(input: &[u8]) {
    let table = nftables::render(&desired(), Family::V4, &options(), &node());
    let (family, name) = (table.family as u8, table.name.clone());
    let kernel = FakeNfTables::default();
    kernel.run(|| {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut desired = desired_from(&table);
        nf_tables::commit(&mut socket, &mut desired).expect("there was no table");
        let mut input = Input(input);
        while !input.is_empty() {
            let before = kernel.requests();
            if input.byte() % 16 == 0 {
                kernel.delete_table(family, &name);
            } else {
                kernel.tamper(family, &name, |table| tamper(table, &mut input));
            }
            desired.invalidate();
            nf_tables::commit(&mut socket, &mut desired).expect("external changes cannot make a commit fail");
            assert!(kernel.requests() - before <= MAX_REQUESTS, "a commit ends");
            check(&mut socket, &desired);
        }
    });
}

fn check(socket: &mut Socket, desired: &DesiredTable) {
    let table = desired.desired();
    assert!(nf_tables::compare(socket, desired).unwrap().is_empty());
    let (found, unknown) = nf_tables::read(socket, table.family, &table.name).unwrap().unwrap();
    assert_eq!(unknown, Vec::<String>::new());
    assert_eq!(found.chains, table.chains);
    assert_eq!(found.counters.keys().collect::<Vec<_>>(), table.counters.keys().collect::<Vec<_>>());
    assert!(found.sets.keys().eq(table.sets.keys()));
    for (name, set) in &found.sets {
        assert_eq!(set.elements, table.sets[name].elements, "{name}");
        assert_eq!(set.unknown, Vec::<String>::new(), "{name}");
    }
}

/// Makes one change, and keeps what the kernel guarantees: unique names, and references to objects that exist.
fn tamper(table: &mut RawTable, input: &mut Input<'_>) {
    match input.byte() % 16 {
        0 => _ = remove_at(&mut table.chains, input),
        1 => _ = remove_at(&mut table.rules, input),
        2 => {
            let at = input.below(table.rules.len());
            table.rules.extend(table.rules.get(at).cloned());
        }
        3 => {
            let (one, other) = (input.below(table.rules.len()), input.below(table.rules.len()));
            if !table.rules.is_empty() {
                table.rules.swap(one, other);
            }
        }
        4 => _ = remove_at(&mut table.sets, input),
        5 => with_set(table, input, |set, _| set.elements.clear()),
        6 => with_set(table, input, |set, input| {
            let at = input.below(set.elements.len());
            set.elements =
                set.elements.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, e)| own(e)).collect();
        }),
        7 => with_set(table, input, |set, input| {
            let element = input.piece().to_vec();
            set.elements.insert(element.clone(), element);
        }),
        8 => {
            let chain = input.below(table.chains.len());
            let Some(chain) = table.chains.get(chain).map(|chain| chain.name.clone()) else { return };
            let attributes = vec![(1, Vec::new()), (2, chain.clone()), (4, input.piece().to_vec())];
            table.rules.insert(input.below(table.rules.len() + 1), RawObject { name: chain, attributes });
        }
        9 => table.chains.push(object(3, input)),
        10 => table.objects.push(object(2, input)),
        11 => table.flow_tables.push(object(2, input)),
        12 => table.sets.push(RawSet { set: object(2, input), ..RawSet::default() }),
        13 => {
            let objects = table.objects.len();
            if let Some(object) = table.objects.get_mut(input.below(objects)) {
                corrupt(&mut object.attributes, input);
            }
        }
        14 => corrupt(&mut table.attributes, input),
        _ => corrupt_any(table, input),
    }
    keep_guarantees(table);
}

fn own((key, value): (&Vec<u8>, &Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
    (key.clone(), value.clone())
}

fn remove_at<T>(objects: &mut Vec<T>, input: &mut Input<'_>) -> Option<T> {
    let at = input.below(objects.len());
    (at < objects.len()).then(|| objects.remove(at))
}

fn with_set(table: &mut RawTable, input: &mut Input<'_>, change: impl FnOnce(&mut RawSet, &mut Input<'_>)) {
    let at = input.below(table.sets.len());
    if let Some(set) = table.sets.get_mut(at) {
        change(set, input);
    }
}

/// Returns an object with a name and any other attributes.
fn object(name_attribute: u16, input: &mut Input<'_>) -> RawObject {
    let name = [input.piece(), &[0]].concat();
    let mut attributes = vec![(1, Vec::new()), (name_attribute, name.clone())];
    for _ in 0..input.byte() % 8 {
        attributes.push((u16::from(input.byte() % 20), input.piece().to_vec()));
    }
    RawObject { name, attributes }
}

/// Changes one byte of an object.
fn corrupt_any(table: &mut RawTable, input: &mut Input<'_>) {
    let objects =
        table.chains.iter_mut().chain(&mut table.rules).chain(table.sets.iter_mut().map(|set| &mut set.set));
    let mut objects: Vec<&mut RawObject> = objects.collect();
    let at = input.below(objects.len());
    if let Some(object) = objects.get_mut(at) {
        corrupt(&mut object.attributes, input);
    }
}

/// Changes one byte of an attribute, but neither the name of the table nor that of the object.
fn corrupt(attributes: &mut Attributes, input: &mut Input<'_>) {
    let at = input.below(attributes.len());
    if let Some((number, payload)) = attributes.get_mut(at)
        && !matches!(number, 1..=3)
        && let Some(byte) = {
            let at = input.below(payload.len());
            payload.get_mut(at)
        }
    {
        *byte = input.byte();
    }
}

fn keep_guarantees(table: &mut RawTable) {
    let name = table
        .attributes
        .iter()
        .find(|(number, _)| *number == 1)
        .map(|(_, name)| name.clone())
        .unwrap_or_default();
    let mut seen = BTreeSet::new();
    let mut is_new = |kind: u8, object: &RawObject| seen.insert((kind, object.name.clone()));
    table.chains.retain(|chain| is_new(0, chain));
    table.sets.retain(|set| is_new(1, &set.set));
    table.objects.retain(|object| is_new(2, object));
    table.flow_tables.retain(|object| is_new(3, object));
    let (chains, sets, objects): (BTreeSet<_>, BTreeSet<_>, BTreeSet<_>) = (
        table.chains.iter().map(|chain| chain.name.clone()).collect(),
        table.sets.iter().map(|set| set.set.name.clone()).collect(),
        table.objects.iter().map(|object| object.name.clone()).collect(),
    );
    table.rules.retain(|rule| chains.contains(&rule.name) && rule.refers_to(&chains, &sets, &objects));
    for set in &mut table.sets {
        set.elements.retain(|_, element| RawSet::refers_to(element, &chains));
    }
    let all = table
        .chains
        .iter_mut()
        .chain(&mut table.rules)
        .chain(&mut table.objects)
        .chain(&mut table.flow_tables);
    for object in all.chain(table.sets.iter_mut().map(|set| &mut set.set)) {
        object.attributes[0].1.clone_from(&name);
    }
}
