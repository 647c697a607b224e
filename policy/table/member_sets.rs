//! Sets of named ports as nf_tables sets, one for each family.

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{DataType, Element, Key, Set, SetSpec};

use super::edit::{ElementEdit, SetEdit};
use super::names::of_family;
use crate::compile::{NamedPortId, SetChange, SetUpdate};

/// Returns the changes of the nf_tables sets of a named port.
pub(super) fn named_port_edits(change: &SetChange<NamedPortId, (IpAddr, u16)>) -> Vec<SetEdit> {
    let name = change.id.name();
    let mut edits = Vec::new();
    for family in Family::ALL {
        let set: Arc<str> = of_family(&name, family).into();
        let keys = |members: &[(IpAddr, u16)]| -> Vec<Key> {
            let members = members.iter().copied();
            let members = members.filter(|(address, _)| Family::from_address(*address) == family);
            members.map(|(address, port)| Key::from(address).port(port)).collect()
        };
        let element = |key: Key, element: Option<Element>| {
            SetEdit::Element(ElementEdit { set: Arc::clone(&set), key, element })
        };
        match &change.update {
            SetUpdate::Created(members) => {
                let spec = SetSpec::new(&[DataType::address(family), DataType::InetService]);
                let elements = keys(members).into_iter().map(|key| (key, Element::new()));
                let set_with_elements =
                    Set::with_elements(spec.with_comment(&change.id.describe()), elements);
                edits.push(SetEdit::Put(set, set_with_elements));
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
