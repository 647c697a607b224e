//! Routes, neighbours and FDB entries as text, in the words of `ip` and `bridge`.

use portcullis_netlink::route::{FdbEntry, Neighbour, Route, RouteTarget};

use super::object::ForwardingObject;

impl ForwardingObject {
    /// Returns the object as a line, such as `10.244.2.0/24 via 192.168.0.2 dev eth0`. `link` returns the name of a link.
    pub fn line(&self, link: impl Fn(u32) -> String) -> String {
        match self {
            ForwardingObject::Fdb(FdbEntry { link: index, mac, remote }) => {
                format!("{mac} dst {remote} dev {}", link(*index))
            }
            ForwardingObject::Neighbour(Neighbour { link: index, address, mac }) => {
                format!("{address} lladdr {mac} dev {}", link(*index))
            }
            ForwardingObject::Route(route) => route_line(route, link),
        }
    }

    /// Returns the kind of the object, in the plural.
    pub fn kind(&self) -> &'static str {
        match self {
            ForwardingObject::Fdb(_) => "FDB entries",
            ForwardingObject::Neighbour(_) => "neighbours",
            ForwardingObject::Route(_) => "routes",
        }
    }
}

fn route_line(route: &Route, link: impl Fn(u32) -> String) -> String {
    let destination = route.destination;
    match route.target {
        RouteTarget::Gateway { link: index, address, is_onlink } => {
            let onlink = if is_onlink { " onlink" } else { "" };
            format!("{destination} via {address} dev {}{onlink}", link(index))
        }
        RouteTarget::Link(index) => format!("{destination} dev {}", link(index)),
        RouteTarget::Unreachable => format!("unreachable {destination} metric {}", route.metric),
    }
}
