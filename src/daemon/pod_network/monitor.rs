//! External changes of links, addresses, routes, neighbours and FDB entries.
//!
//! A notification is compared with what this program wants: one that agrees with it was caused by this program itself, and is ignored.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_netlink::Result;
use portcullis_netlink::route::{ForwardingEvent, ForwardingMonitor, Route, RouteTarget, Rtnetlink};
use portcullis_podnet::ROUTE_PROTOCOL;
use portcullis_podnet::node_routes::{ForwardingKey, ForwardingObject, NodeRoutes};

use crate::control::{Mailbox, Notifier, Wake};
use crate::daemon::watch_thread;

/// The time for which changes are collected before the notification, as they come in bursts.
const SETTLED: Duration = Duration::from_millis(50);

/// An external change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum LinkDrift {
    /// Of a VXLAN link or an uplink, or of its addresses.
    Links,
    /// Of routes, neighbours or FDB entries.
    Routes,
    /// Of egress rules or host ports.
    Rules,
    /// The kernel dropped notifications.
    Unknown,
}

impl LinkDrift {
    /// Describes the process that made the change, and what it changed. rtnetlink does not report the process.
    pub(super) fn description(self) -> &'static str {
        match self {
            LinkDrift::Links => "an unknown process (links or addresses)",
            LinkDrift::Routes => "an unknown process (routes or neighbours)",
            LinkDrift::Rules => "another process (egress rules or host ports)",
            LinkDrift::Unknown => "an unknown process; the kernel dropped notifications",
        }
    }
}

/// What the worker wants, which the monitor compares notifications with.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Mutex<Wanted>>);

/// The wanted routes, and the links on which they depend.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) routes: NodeRoutes,
    /// The indexes of the VXLAN links and uplinks.
    pub(super) links: BTreeSet<u32>,
    /// An uplink or a VXLAN link was not found, so each changed link may be it.
    pub(super) lacks_link: bool,
}

impl Shared {
    pub(super) fn new(routes: NodeRoutes) -> Self {
        Shared(Arc::new(Mutex::new(Wanted { routes, links: BTreeSet::new(), lacks_link: true })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Wanted> {
        // A panic with the lock held ends the process.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    /// Returns the external change of which a notification reports.
    fn drift(&self, event: &ForwardingEvent) -> Option<LinkDrift> {
        let wanted = |key| self.routes.wanted().get(&key);
        let is_routes = match event {
            ForwardingEvent::Overrun => return Some(LinkDrift::Unknown),
            ForwardingEvent::Link(index) | ForwardingEvent::Address(index) => {
                let is_relevant = self.lacks_link || self.links.contains(index);
                return is_relevant.then_some(LinkDrift::Links);
            }
            ForwardingEvent::RouteAdded(route, protocol) => {
                let is_own = *protocol == ROUTE_PROTOCOL && !matches!(route.target, RouteTarget::Link(_));
                match wanted(key_of(route)) {
                    Some(object) => *object != ForwardingObject::Route(*route) || !is_own,
                    None => is_own,
                }
            }
            // Also of a route of another program, which prevented one of ours.
            ForwardingEvent::RouteDeleted(route, _) => wanted(key_of(route)).is_some(),
            ForwardingEvent::NeighbourSet(neighbour) => {
                let object = ForwardingObject::Neighbour(*neighbour);
                wanted(object.key()).is_some_and(|wanted| *wanted != object)
            }
            ForwardingEvent::NeighbourDeleted(neighbour) => {
                wanted(ForwardingObject::Neighbour(*neighbour).key()).is_some()
            }
            ForwardingEvent::FdbEntrySet(entry) => {
                let object = ForwardingObject::Fdb(*entry);
                self.is_vtep(entry.link) && wanted(object.key()) != Some(&object)
            }
            ForwardingEvent::FdbEntryDeleted(entry) => wanted(ForwardingObject::Fdb(*entry).key()).is_some(),
        };
        is_routes.then_some(LinkDrift::Routes)
    }

    fn is_vtep(&self, link: u32) -> bool {
        self.routes.own().vteps.contains(&Some(link))
    }
}

fn key_of(route: &Route) -> ForwardingKey {
    ForwardingObject::Route(*route).key()
}

/// Returns a mailbox that is notified of external changes. If the kernel does not report changes, that is logged; the periodic comparison
/// finds them later.
pub(super) fn watch(shared: &Shared, wake: &Wake) -> Mailbox<LinkDrift> {
    let shared = shared.clone();
    watch_thread::spawn_with(
        "pod-network",
        "cannot subscribe to changes of links and routes: changes of the pod network by other processes are noticed late",
        move |notifier| follow(&shared, notifier),
        LinkDrift::Unknown,
        wake,
    )
}

fn follow(shared: &Shared, notifier: &Notifier<LinkDrift>) -> Result<()> {
    let mut changes = ForwardingMonitor::open()?;
    // Changes from before the subscription.
    if !notifier.notify(LinkDrift::Unknown) {
        return Ok(());
    }
    loop {
        changes.wait()?;
        let mut found = Found::default();
        found.read(shared, &mut changes)?;
        if found.is_empty() {
            continue;
        }
        std::thread::sleep(SETTLED);
        found.read(shared, &mut changes)?;
        if let Some(drift) = found.drift()?
            && !notifier.notify(drift)
        {
            return Ok(());
        }
    }
}

/// What notifications have reported.
#[derive(Default)]
struct Found {
    /// The first external change.
    drift: Option<LinkDrift>,
    /// The links of routes to pods that were deleted. Usually the link goes as well, because the pod ends.
    pod_links: BTreeSet<u32>,
}

impl Found {
    fn is_empty(&self) -> bool {
        self.drift.is_none() && self.pod_links.is_empty()
    }

    /// Reads all pending changes.
    fn read(&mut self, shared: &Shared, changes: &mut ForwardingMonitor) -> Result<()> {
        while let Some(event) = changes.try_next()? {
            match event {
                ForwardingEvent::RouteDeleted(
                    Route { target: RouteTarget::Link(link), .. },
                    ROUTE_PROTOCOL,
                ) => {
                    self.pod_links.insert(link);
                }
                _ if self.drift.is_none() => self.drift = shared.lock().drift(&event),
                _ => {}
            }
        }
        Ok(())
    }

    /// Returns the external change.
    fn drift(self) -> Result<Option<LinkDrift>> {
        if self.drift.is_some() || self.pod_links.is_empty() {
            return Ok(self.drift);
        }
        let links = Rtnetlink::open()?.links()?;
        let is_left = links.iter().any(|link| link.is_up() && self.pod_links.contains(&link.index));
        Ok(is_left.then_some(LinkDrift::Routes))
    }
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::{Event, Index, Kind, Name, Object};
    use portcullis_netlink::route::{FdbEntry, Neighbour};
    use portcullis_podnet::PodNetworkMode;
    use portcullis_podnet::node_routes::OwnNetwork;
    use serde_json::json;

    use super::*;

    const ETH0: u32 = 2;
    const VTEP: u32 = 7;
    const OTHER: u32 = 9;

    fn wanted() -> Wanted {
        let mut index = Index::new();
        for (name, number) in [("a", 1), ("b", 2)] {
            let node = json!({
                "metadata": {"name": name},
                "spec": {"podCIDRs": [format!("10.244.{number}.0/24")]},
                "status": {"addresses": [{"type": "InternalIP", "address": format!("192.168.0.{number}")}]},
            });
            index.handle(Event::Applied(Object::parse(Kind::Node, node).expect("a Node").object));
        }
        let own = OwnNetwork::new(Name::new("a"), PodNetworkMode::Vxlan);
        let mut routes = NodeRoutes::new(OwnNetwork { vteps: [Some(VTEP), None], ..own });
        routes.update(index.nodes().map(|node| (node.name.clone(), Some(node))));
        Wanted { routes, links: [ETH0, VTEP].into(), lacks_link: false }
    }

    #[test]
    fn notifications_of_own_changes_are_no_drift() {
        let wanted = wanted();
        let objects = wanted.routes.wanted().values();
        for object in objects {
            let event = match object {
                ForwardingObject::Fdb(entry) => ForwardingEvent::FdbEntrySet(*entry),
                ForwardingObject::Neighbour(neighbour) => ForwardingEvent::NeighbourSet(*neighbour),
                ForwardingObject::Route(route) => ForwardingEvent::RouteAdded(*route, ROUTE_PROTOCOL),
            };
            assert_eq!(wanted.drift(&event), None, "{event:?}");
        }
    }

    #[test]
    fn external_changes_are_drift() {
        let wanted = wanted();
        let target = RouteTarget::Gateway { link: VTEP, address: [10, 244, 2, 0].into(), is_onlink: true };
        let route = Route { destination: "10.244.2.0/24".parse().expect("a block"), target, metric: 0 };
        let detour = RouteTarget::Gateway { link: ETH0, address: [192, 168, 0, 9].into(), is_onlink: false };
        let unknown = "10.99.0.0/16".parse().expect("a block");
        let pod = Route {
            destination: "10.244.1.5/32".parse().expect("a block"),
            target: RouteTarget::Link(OTHER),
            metric: 0,
        };
        let find = |is: fn(&ForwardingObject) -> bool| {
            *wanted.routes.wanted().values().find(|o| is(o)).expect("it exists")
        };
        let ForwardingObject::Fdb(entry) = find(|o| matches!(o, ForwardingObject::Fdb(_))) else { panic!() };
        let ForwardingObject::Neighbour(neighbour) = find(|o| matches!(o, ForwardingObject::Neighbour(_)))
        else {
            panic!()
        };
        let (links, routes) = (Some(LinkDrift::Links), Some(LinkDrift::Routes));
        let static_route = 4;
        let rows = [
            (ForwardingEvent::Link(VTEP), links),
            (ForwardingEvent::Link(ETH0), links),
            (ForwardingEvent::Link(OTHER), None),
            (ForwardingEvent::Address(ETH0), links),
            (ForwardingEvent::Address(OTHER), None),
            (ForwardingEvent::RouteDeleted(route, ROUTE_PROTOCOL), routes),
            (ForwardingEvent::RouteAdded(Route { target: detour, ..route }, static_route), routes),
            (ForwardingEvent::RouteAdded(Route { destination: unknown, ..route }, static_route), None),
            (ForwardingEvent::RouteAdded(Route { destination: unknown, ..route }, ROUTE_PROTOCOL), routes),
            (ForwardingEvent::RouteDeleted(Route { destination: unknown, ..route }, ROUTE_PROTOCOL), None),
            (ForwardingEvent::RouteAdded(pod, ROUTE_PROTOCOL), None),
            (ForwardingEvent::RouteDeleted(pod, ROUTE_PROTOCOL), None),
            (ForwardingEvent::NeighbourDeleted(neighbour), routes),
            (ForwardingEvent::NeighbourDeleted(Neighbour { link: ETH0, ..neighbour }), None),
            (
                ForwardingEvent::NeighbourSet(Neighbour {
                    mac: portcullis_netlink::route::MacAddress([2; 6]),
                    ..neighbour
                }),
                routes,
            ),
            (ForwardingEvent::FdbEntryDeleted(entry), routes),
            (ForwardingEvent::FdbEntrySet(FdbEntry { remote: [192, 168, 0, 9].into(), ..entry }), routes),
            (ForwardingEvent::FdbEntrySet(FdbEntry { link: OTHER, ..entry }), None),
            (ForwardingEvent::Overrun, Some(LinkDrift::Unknown)),
        ];
        for (event, expected) in rows {
            assert_eq!(wanted.drift(&event), expected, "{event:?}");
        }
        let lacking = Wanted { lacks_link: true, ..wanted };
        assert_eq!(lacking.drift(&ForwardingEvent::Address(OTHER)), links, "it may be the new uplink");
    }
}
