//! Diagnosis of packets that code without trace support took: routing, iptables legacy, IPVS, connection tracking.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Mutex;

use portcullis_netlink::nf_tables::{Hook, TraceFamily, TracedAddresses};
use portcullis_netlink::route::{Link, RouteLookup, Rtnetlink};

use super::explanation::ResultKind;
use super::outcome::os_error;
use super::step::Step;

/// The parts of the kernel that are not traced.
pub(super) trait Untraced {
    /// Returns the reason why a packet was not routed after the hook of a step.
    fn not_routed(&self, step: &Step, packet: Option<UnroutedPacket>) -> String;

    /// Returns the reason why a packet did not pass a hook between two priorities.
    fn in_hook(&self, address: IpAddr, hook: Hook, after: i32, before: i32) -> (ResultKind, String);
}

/// A packet that was not routed.
#[derive(Clone, Copy)]
pub(super) struct UnroutedPacket {
    pub(super) addresses: TracedAddresses,
    /// The index of the interface that received it; `None` if this node sent it.
    pub(super) input: Option<u32>,
}

/// Tables of iptables legacy, and IPVS: the hook, the priority and the name.
const CODE: [(Hook, i32, &str); 18] = [
    (Hook::Prerouting, -300, "raw"),
    (Hook::Prerouting, -150, "mangle"),
    (Hook::Prerouting, -100, "nat"),
    (Hook::Input, -150, "mangle"),
    (Hook::Input, 0, "filter"),
    (Hook::Input, 50, "security"),
    (Hook::Input, 98, IPVS),
    (Hook::Input, 100, "nat"),
    (Hook::Forward, -150, "mangle"),
    (Hook::Forward, 0, "filter"),
    (Hook::Forward, 50, "security"),
    (Hook::Output, -300, "raw"),
    (Hook::Output, -150, "mangle"),
    (Hook::Output, -100, "nat"),
    (Hook::Output, -98, IPVS),
    (Hook::Output, 0, "filter"),
    (Hook::Postrouting, -150, "mangle"),
    (Hook::Postrouting, 100, "nat"),
];

const IPVS: &str = "IPVS";

/// `NF_IP_PRI_CONNTRACK`.
const CONNTRACK: i32 = -200;

/// The node on which this process runs.
pub(super) struct ThisNode {
    routes: Mutex<Rtnetlink>,
    links: Vec<Link>,
}

impl ThisNode {
    pub(super) fn new(mut routes: Rtnetlink) -> Result<Self, portcullis_netlink::Error> {
        let links = routes.links()?;
        Ok(ThisNode { routes: Mutex::new(routes), links })
    }

    /// Returns the parts of the path that no trace shows.
    pub(super) fn not_visible(&self, is_ipv4: bool) -> Vec<String> {
        let mut parts = Vec::new();
        let legacy = legacy_tables(is_ipv4);
        if !legacy.is_empty() {
            let tool = if is_ipv4 { "iptables" } else { "ip6tables" };
            parts.push(format!("{tool} legacy tables are not traced: {}", legacy.join(", ")));
        }
        if has_ipvs() {
            parts.push("IPVS is not traced: only the rules before and after it are shown".to_owned());
        }
        parts
    }

    fn look_up(&self, lookup: &RouteLookup) -> Result<portcullis_netlink::route::FoundRoute, i32> {
        let mut routes = self.routes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        routes.look_up_route(lookup).map_err(|error| error.errno().unwrap_or(libc::EIO))
    }

    fn name(&self, index: Option<u32>) -> &str {
        let link = self.links.iter().find(|link| Some(link.index) == index);
        link.map_or("an unknown interface", |link| &link.name)
    }

    /// Returns the reason why reverse path filtering drops packets of a source on an interface, if it does.
    fn reverse_path(&self, source: IpAddr, input: u32) -> Option<String> {
        let name = self.name(Some(input));
        let mode = strictest("rp_filter", name);
        let back = self.look_up(&RouteLookup {
            destination: source,
            source: None,
            input: None,
            output: None,
            mark: 0,
        });
        let way = match &back {
            Ok(route) if mode == 1 && route.output != Some(input) => {
                format!("its way back is by {}", self.name(route.output))
            }
            Err(_) if mode > 0 => "there is no way back".to_owned(),
            _ => return None,
        };
        Some(format!(
            "reverse path filtering on {name} drops packets from {source}: {way} (net.ipv4.conf.{name}.rp_filter or \
             net.ipv4.conf.all.rp_filter is {mode})"
        ))
    }
}

impl Untraced for ThisNode {
    fn not_routed(&self, step: &Step, packet: Option<UnroutedPacket>) -> String {
        let hook = step.marker.map_or("its last", |marker| marker.hook.as_str());
        let Some(UnroutedPacket { addresses, input }) = packet else {
            return format!("after the {hook} hook");
        };
        let (source, destination) = (addresses.source.ip(), addresses.destination.ip());
        if step.family == TraceFamily::BRIDGE
            && step.marker.is_some_and(|marker| matches!(marker.hook, Hook::Prerouting | Hook::Forward))
        {
            return format!("in the bridge after the {hook} hook: no port leads to {destination}");
        }
        let input = input.map(|input| self.routed_input(input));
        let is_received = input.is_some();
        let lookup = RouteLookup {
            destination,
            source: is_received.then_some(source),
            input,
            output: None,
            mark: step.mark,
        };
        let family = if destination.is_ipv4() { "ipv4" } else { "ipv6" };
        let name = self.name(input);
        match self.look_up(&lookup) {
            Ok(route) if !route.is_local() && is_received && !forwards(family, name) => {
                format!("this node does not forward packets (net.{family}.conf.{name}.forwarding is 0)")
            }
            Ok(route) => format!(
                "after the {hook} hook, although this node has a route to {destination} by {}",
                self.name(route.output)
            ),
            Err(libc::EHOSTUNREACH) if is_received && !forwards(family, name) => {
                format!("this node does not forward packets (net.{family}.conf.{name}.forwarding is 0)")
            }
            Err(libc::ENETUNREACH) => format!("this node has no route to {destination}"),
            Err(libc::EHOSTUNREACH) => format!("this node's route to {destination} is of type unreachable"),
            Err(libc::EACCES) => format!("this node's route to {destination} is of type prohibit"),
            Err(errno @ (libc::EINVAL | libc::EXDEV)) => {
                let filtered =
                    input.filter(|_| source.is_ipv4()).and_then(|index| self.reverse_path(source, index));
                filtered.unwrap_or_else(|| {
                    format!(
                        "this node does not route packets from {source} to {destination}: invalid addresses, or a route \
                         of type blackhole ({})",
                        os_error(errno)
                    )
                })
            }
            Err(errno) => format!("this node does not route it: {}", os_error(errno)),
        }
    }

    fn in_hook(&self, address: IpAddr, hook: Hook, after: i32, before: i32) -> (ResultKind, String) {
        let between = |priority: i32| after < priority && priority < before;
        let is_ipv4 = address.is_ipv4();
        let tables = legacy_tables(is_ipv4);
        let has_code =
            |name: &str| if name == IPVS { has_ipvs() } else { tables.iter().any(|table| table == name) };
        let candidates: Vec<&str> = CODE
            .iter()
            .filter(|(of, priority, name)| *of == hook && between(*priority) && has_code(name))
            .map(|(_, _, name)| *name)
            .collect();
        let chain = hook.as_str().to_uppercase();
        if let [table] = candidates[..]
            && table != IPVS
        {
            let tool = if is_ipv4 { "iptables" } else { "ip6tables" };
            return (
                ResultKind::Dropped,
                format!(
                    "by the {tool} legacy table {table}, chain {chain}, whose rules are not traced: list them with \
                     {tool}-legacy -t {table} -S {chain}"
                ),
            );
        }
        if between(CONNTRACK) && is_conntrack_full() {
            return (ResultKind::Dropped, "the connection tracking table is full".to_owned());
        }
        let place = format!("in the {} hook between the priorities {after} and {before}", hook.as_str());
        match candidates.is_empty() {
            true => (ResultKind::Lost, format!("{place}, by code that is not traced")),
            false => (
                ResultKind::Lost,
                format!("{place}, by one of {}, which are not traced", candidates.join(", ")),
            ),
        }
    }
}

impl ThisNode {
    /// Returns the interface that the routing decision sees: the bridge, for a packet that entered by its port.
    fn routed_input(&self, index: u32) -> u32 {
        let link = self.links.iter().find(|link| link.index == index);
        link.and_then(|link| link.controller).unwrap_or(index)
    }
}

/// Returns the stricter of an IPv4 setting of an interface and that of all interfaces.
fn strictest(setting: &str, interface: &str) -> u8 {
    let read = |of: &str| read_number(&format!("/proc/sys/net/ipv4/conf/{of}/{setting}")).unwrap_or_default();
    read("all").max(read(interface)) as u8
}

fn forwards(family: &str, interface: &str) -> bool {
    let read = |of: &str| read_number(&format!("/proc/sys/net/{family}/conf/{of}/forwarding"));
    read(interface).unwrap_or(1) != 0 && (family == "ipv4" || read("all").unwrap_or(1) != 0)
}

fn read_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Returns the tables of iptables legacy that exist.
fn legacy_tables(is_ipv4: bool) -> Vec<String> {
    let file = if is_ipv4 { "/proc/net/ip_tables_names" } else { "/proc/net/ip6_tables_names" };
    let mut names: Vec<String> =
        fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect();
    names.sort();
    names
}

fn has_ipvs() -> bool {
    // Without virtual servers, the file has three lines.
    let servers = fs::read_to_string(Path::new("/proc/net/ip_vs")).unwrap_or_default();
    servers.lines().count() > 3
}

fn is_conntrack_full() -> bool {
    let read = |name: &str| read_number(&format!("/proc/sys/net/netfilter/nf_conntrack_{name}"));
    matches!((read("count"), read("max")), (Some(count), Some(max)) if count >= max)
}
