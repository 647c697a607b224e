//! Elements of a pod's address in the base sets and maps.

use std::sync::Arc;

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{Element, Key};

use super::edit::ElementEdit;
use super::names::{CLIENTS, EGRESS, INGRESS, ITSELF, KNOWN_PODS, SERVERS, TO_THIS_NODE, of_family};
use super::options::{PolicyOptions, UnknownPods};
use super::profile_chain::has_node_chain;
use super::profile_numbers::ProfileNumbers;
use crate::compile::{AddressChange, Profile};

/// Returns the elements of an address after a change.
pub(super) fn pod_elements(
    change: &AddressChange,
    numbers: &ProfileNumbers,
    options: &PolicyOptions,
) -> Vec<ElementEdit> {
    let family = Family::from_address(change.address);
    let address = || Key::from(change.address);
    let mut edits = Vec::new();
    let mut edit = |set: &str, key: Key, element: Option<Element>| {
        edits.push(ElementEdit { set: of_family(set, family).into(), key, element });
    };
    let profiles = change.after.clone().unwrap_or_default();
    let (ingress, egress) = (profiles.ingress.as_ref(), profiles.egress.as_ref());
    let number = |profile: &Arc<Profile>| numbers.get(profile).map(|n| Element::value(Key::new().number(n)));
    edit(INGRESS, address(), ingress.and_then(number));
    edit(EGRESS, address(), egress.and_then(number));
    edit(TO_THIS_NODE, address(), egress.filter(|profile| has_node_chain(profile)).and_then(number));
    let is_isolated = |profile: &&Arc<Profile>| !profile.network.is_empty();
    let isolated = [ingress, egress].into_iter().flatten().any(|profile| is_isolated(&profile));
    edit(ITSELF, address().address(change.address), isolated.then(Element::new));
    if options.terminates_connections {
        edit(SERVERS, address(), ingress.map(|_| Element::new()));
        edit(CLIENTS, address(), egress.map(|_| Element::new()));
    }
    if options.unknown_pods != UnknownPods::Allow {
        edit(KNOWN_PODS, address(), change.after.is_some().then(Element::new));
    }
    edits
}
