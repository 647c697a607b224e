//! Conntrack entries that changed host ports leave stale.
//!
//! A UDP or SCTP client keeps sending through an existing flow, and rules apply to the first packet of a flow only. So when a
//! host port gets another target, its flows to other addresses are deleted, also those to the node itself from before the
//! port had a target. Flows to a pod that is deleted are deleted for all protocols: a new pod may get its address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portcullis_netlink::conntrack::{Conntrack, DeleteMethod, Filter, Flow, TupleFilter};
use portcullis_netlink::route::Rtnetlink;
use portcullis_netlink::{Family, Result};

use super::elements::Forward;

/// Deletes the flows to host ports that go to another address than the target. Returns the number of deleted flows.
pub(super) fn delete_untranslated(added: &[Forward]) -> Result<usize> {
    let added: Vec<&Forward> =
        added.iter().filter(|forward| forward.mapping.protocol.has_stale_flows()).collect();
    if added.is_empty() {
        return Ok(0);
    }
    let families: Vec<Family> = distinct(added.iter().map(|forward| forward.family));
    let protocols: Vec<u8> = distinct(added.iter().map(|forward| forward.mapping.protocol.number()));
    let local: BTreeSet<IpAddr> =
        Rtnetlink::open()?.addresses(&families)?.into_iter().map(|address| address.address.addr()).collect();
    let is_stale = |flow: &Flow| added.iter().any(|forward| is_stale(flow, forward, &local));
    Ok(Conntrack::open()?.delete_where(&families, &protocols, is_stale)?.deleted)
}

fn is_stale(flow: &Flow, forward: &Forward, local: &BTreeSet<IpAddr>) -> bool {
    let mapping = &forward.mapping;
    let destination = flow.original.destination;
    let is_at_host_port = flow.family == forward.family
        && flow.protocol == mapping.protocol.number()
        && flow.original.destination_port == mapping.host_port.get()
        && match mapping.single_host_ip() {
            Some(ip) => ip == destination,
            None => destination.is_loopback() || local.contains(&destination),
        };
    let target = (forward.target.ip(), forward.target.port());
    // A packet from an own port to a client that has the number of the host port is no flow to the host port.
    is_at_host_port && (flow.reply.source, flow.reply.source_port) != target
}

/// Deletes the flows from host ports to these targets, of all protocols. Returns the number of deleted flows, as far as the
/// kernel reports it.
pub(super) fn delete_to_targets(removed: &[Forward]) -> Result<usize> {
    let mut deleted = 0;
    if removed.is_empty() {
        return Ok(deleted);
    }
    let mut conntrack = Conntrack::open()?;
    for forward in removed {
        let filter = Filter {
            original: TupleFilter {
                destination: forward.mapping.single_host_ip(),
                destination_port: Some(forward.mapping.host_port.get()),
                ..TupleFilter::default()
            },
            reply: TupleFilter {
                source: Some(forward.target.ip()),
                source_port: Some(forward.target.port()),
                ..TupleFilter::default()
            },
            ..Filter::new(forward.family).protocol(forward.mapping.protocol.number())
        };
        if let DeleteMethod::OneByOne(counts) = conntrack.delete_matching(&filter)? {
            deleted += counts.deleted;
        }
    }
    Ok(deleted)
}

fn distinct<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    BTreeSet::from_iter(values).into_iter().collect()
}
