//! Routes to the pods of this node, which the CNI plugin adds when it wires a pod.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use portcullis_cluster::Family;
use portcullis_netlink::route::{ForwardingBatch, Link, Route, RouteTarget, Rtnetlink};
use portcullis_netlink::{Family as NetlinkFamily, Result};

use crate::ROUTE_PROTOCOL;
use crate::addresses::Attachment;

/// Adds routes to pods that another process removed. Returns the number of added routes.
///
/// # Errors
/// As [`missing_pod_routes`].
pub fn restore_pod_routes(rtnetlink: &mut Rtnetlink, attachments: &[Attachment]) -> Result<usize> {
    let mut batch = ForwardingBatch::new(ROUTE_PROTOCOL);
    missing_pod_routes(rtnetlink, attachments)?.iter().for_each(|route| batch.add_route(route));
    let (total, mut rejected) = (batch.len(), 0);
    // A pod may be removed meanwhile.
    rtnetlink.forward(&mut batch, |_, _| rejected += 1)?;
    Ok(total - rejected)
}

/// Returns the routes to pods that the kernel lacks: each attachment has one for each of its addresses through its interface. Ports of a
/// bridge have none, as the bridge's own route is that of all its pods.
///
/// # Errors
/// [`Error::Interrupted`](portcullis_netlink::Error::Interrupted) if links or routes change faster than they can be read.
pub fn missing_pod_routes(rtnetlink: &mut Rtnetlink, attachments: &[Attachment]) -> Result<Vec<Route>> {
    if attachments.is_empty() {
        return Ok(Vec::new());
    }
    let links: BTreeMap<String, Link> =
        rtnetlink.links()?.into_iter().map(|link| (link.name.clone(), link)).collect();
    let existing: BTreeSet<IpNet> = rtnetlink
        .routes(None)?
        .into_iter()
        .filter(|(route, _)| matches!(route.target, RouteTarget::Link(_)))
        .map(|(route, _)| route.destination)
        .collect();
    let mut missing = Vec::new();
    for attachment in attachments {
        let link = links.get(&attachment.host_interface);
        let Some(link) = link.filter(|link| link.controller.is_none() && link.is_up()) else { continue };
        for address in &attachment.addresses {
            let destination = IpNet::from(address.addr());
            if !existing.contains(&destination) {
                let metric = Route::default_metric(match Family::from_net(&destination) {
                    Family::V4 => NetlinkFamily::V4,
                    Family::V6 => NetlinkFamily::V6,
                });
                missing.push(Route { destination, target: RouteTarget::Link(link.index), metric });
            }
        }
    }
    Ok(missing)
}
