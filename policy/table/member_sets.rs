//! Peer sets and sets of named ports as nf_tables sets, one for each family.

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{DataType, Element, Key, Set, SetSpec};

use super::edit::{ElementEdit, SetEdit};
use super::names::of_family;
use crate::compile::{NamedPortId, PeerSetId, SetChange, SetUpdate};

/// Returns the changes of the nf_tables sets of a peer set.
pub(super) fn peer_set_edits(change: &SetChange<PeerSetId, IpAddr>) -> Vec<SetEdit> {
    let key = |address: &IpAddr| (*address, Key::from(*address));
    edits(&change.id.name(), &change.id.describe(), &[], &change.update, key)
}

/// Returns the changes of the nf_tables sets of a named port.
pub(super) fn named_port_edits(change: &SetChange<NamedPortId, (IpAddr, u16)>) -> Vec<SetEdit> {
    let key = |(address, port): &(IpAddr, u16)| (*address, Key::from(*address).port(*port));
    edits(&change.id.name(), &change.id.describe(), &[DataType::InetService], &change.update, key)
}

/// Returns the changes of each family's set. `key_suffix` are the parts of the key after the address.
fn edits<T>(
    name: &str,
    comment: &str,
    key_suffix: &[DataType],
    update: &SetUpdate<T>,
    key: impl Fn(&T) -> (IpAddr, Key),
) -> Vec<SetEdit> {
    let mut edits = Vec::new();
    for family in Family::ALL {
        let set: Arc<str> = of_family(name, family).into();
        let keys = |members: &[T]| -> Vec<Key> {
            let all = members.iter().map(&key);
            all.filter(|(address, _)| Family::from_address(*address) == family).map(|(_, key)| key).collect()
        };
        let element = |key: Key, element: Option<Element>| {
            SetEdit::Element(ElementEdit { set: Arc::clone(&set), key, element })
        };
        match update {
            SetUpdate::Created(members) => {
                let types: Vec<DataType> =
                    [DataType::address(family)].into_iter().chain(key_suffix.iter().copied()).collect();
                let spec = SetSpec::new(&types).with_comment(comment);
                let elements = keys(members).into_iter().map(|key| (key, Element::new()));
                edits.push(SetEdit::Put(set, Set::with_elements(spec, elements)));
            }
            SetUpdate::Deleted => edits.push(SetEdit::Remove(set)),
            SetUpdate::Updated { added, removed } => {
                edits.extend(keys(removed).into_iter().map(|key| element(key, None)));
                edits.extend(keys(added).into_iter().map(|key| element(key, Some(Element::new()))));
            }
        }
    }
    edits
}
