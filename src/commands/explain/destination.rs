//! Where to: from what was named to addresses, ports, and the Services behind them.

use std::net::IpAddr;

use portcullis_cluster::desired::{Desired, ServicePort};
use portcullis_cluster::pod::Pod;
use portcullis_cluster::service::NotProxiedReason;
use portcullis_cluster::{Family, Name, NamespacedName, Protocol};

use super::asked::{Destination, End, Port};
use super::client::{Client, ClientKind, usable};
use super::entry::{Entry, entry_at, ports_of};
use super::error::ExplainError;
use super::leading::Refusal;
use super::unserved::Unserved;
use crate::commands::world::{PortNumber, World, listed};

/// The flag that names it.
const FLAG: &str = "--to";

/// One connection that is to be explained.
pub(super) struct Goal {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    pub(super) via: Way,
}

impl Goal {
    /// Whether a Service is there.
    fn is_led(&self) -> bool {
        matches!(self.via, Way::Service { .. })
    }
}

/// What is at an address and port.
pub(super) enum Way {
    /// A Service's address.
    Service {
        /// Which, as the node that leads the connection has it.
        port: Box<ServicePort>,
        /// Which of its addresses.
        entry: Entry,
        /// The node whose rules lead the connection.
        node: Name,
    },
    /// Nothing leads it elsewhere.
    Direct,
    /// Nothing serves this address and port.
    NotServed(Refusal),
}

/// All that was named, for the families in question. Says in the second value why there is nothing to explain
/// though all that was named is there.
pub(super) fn find(
    world: &World<'_>,
    client: &Client,
    to: &Destination,
    families: &[Family],
    node: Option<Name>,
) -> Result<(Vec<Goal>, Option<String>), ExplainError> {
    let finder = Finder { world, client, to, families, node };
    match &to.end {
        End::Named(key) => match (world.index.pod(key), world.index.service(key)) {
            (Some(_), Some(_)) => Err(ExplainError::asked(
                FLAG,
                format!("{key} is both a pod and a Service; say pod/{key} or service/{key}"),
            )),
            (Some(pod), None) => finder.pod(pod),
            (None, Some(_)) => finder.service(key),
            (None, None) => {
                let pods = world.index.pods().map(|pod| &pod.key);
                let all = pods.chain(world.index.services().map(|service| &service.key)).collect();
                Err(ExplainError::asked(FLAG, world.unknown("pod or Service", key, all)))
            }
        },
        End::Pod(key) => match world.index.pod(key) {
            Some(pod) => finder.pod(pod),
            None => {
                let pods = world.index.pods().map(|pod| &pod.key).collect();
                Err(ExplainError::asked(FLAG, world.unknown("pod", key, pods)))
            }
        },
        End::Service(key) => match world.index.service(key) {
            Some(_) => finder.service(key),
            None => {
                let services = world.index.services().map(|service| &service.key).collect();
                Err(ExplainError::asked(FLAG, world.unknown("Service", key, services)))
            }
        },
        End::Node(name) => {
            let Some(node) = world.index.node(*name) else {
                return Err(ExplainError::asked(FLAG, world.unknown_node(*name)));
            };
            finder.addresses(&format!("node {name}"), &node.ips().collect::<Vec<_>>())
        }
        End::Address(address) => finder.addresses(&address.to_string(), &[*address]),
    }
}

struct Finder<'a> {
    world: &'a World<'a>,
    client: &'a Client,
    to: &'a Destination,
    families: &'a [Family],
    /// The node of `--node`.
    node: Option<Name>,
}

type Found = Result<(Vec<Goal>, Option<String>), ExplainError>;

impl Finder<'_> {
    fn service(&self, key: &NamespacedName) -> Found {
        let service = self.world.index.service(key);
        if let Some(ignored) = service.and_then(|service| service.not_proxied) {
            return Ok((Vec::new(), Some(format!("no node serves Service {key}: {}", why_ignored(ignored)))));
        }
        let node = self.leading_node()?;
        let desired = self.world.desired(node);
        let all = desired.services().get(key).cloned().unwrap_or_default();
        let fits = |port: &&ServicePort| {
            let named = match &self.to.port {
                None => true,
                Some(Port::Number(number)) => port.port == *number,
                Some(Port::Name(name)) => port.name.port.as_str() == &**name,
            };
            named && self.to.protocol.is_none_or(|protocol| protocol == port.name.protocol)
        };
        // A port that another Service takes has no address here.
        let unserved = desired.unserved(key);
        let not_served = || {
            let words: Vec<String> = unserved.iter().map(ToString::to_string).collect();
            Ok((Vec::new(), Some(format!("no node serves Service {key} there: {}", words.join("; ")))))
        };
        if all.is_empty() && !unserved.is_empty() {
            return not_served();
        }
        let fitting: Vec<&ServicePort> = all.iter().filter(fits).collect();
        if fitting.is_empty() {
            let asked = self.asked_port();
            let message = format!("Service {key} has no port{asked}; it has {}", ports_of(all.iter()));
            return Err(ExplainError::asked(FLAG, message));
        }
        let mut goals: Vec<Goal> = fitting
            .into_iter()
            .filter(|port| self.families.contains(&port.family))
            .filter_map(|port| {
                Some(Goal {
                    address: port.cluster_ip?,
                    port: port.port.get(),
                    protocol: port.name.protocol,
                    via: Way::Service { port: Box::new(port.clone()), entry: Entry::ClusterIp, node },
                })
            })
            .collect();
        if goals.is_empty() && !unserved.is_empty() {
            return not_served();
        }
        goals.sort_by_key(|goal| Family::from_address(goal.address));
        let families = all.iter().map(|port| port.family);
        self.within_families(goals, &format!("Service {key}"), families)
    }

    fn pod(&self, pod: &Pod) -> Found {
        usable(pod).map_err(|message| ExplainError::asked(FLAG, message))?;
        let ports = match &self.to.port {
            Some(Port::Name(name)) => {
                let named = pod.named_ports.iter().filter(|port| port.name.as_str() == &**name);
                let named = named.map(|port| (port.port.get(), port.protocol));
                let wanted = |port: &PortNumber| self.to.protocol.is_none_or(|protocol| protocol == port.1);
                let named: Vec<PortNumber> = named.filter(wanted).collect();
                if named.is_empty() {
                    let names = pod.named_ports.iter().map(|port| port.name.as_str());
                    let message = format!(
                        "pod {} names no port{}; it names {}",
                        pod.key,
                        self.asked_port(),
                        listed(names)
                    );
                    return Err(ExplainError::asked(FLAG, message));
                }
                named
            }
            _ => self.numbers(&format!("pod {}", pod.key), &pod.ips)?,
        };
        let goals = self.all(&pod.ips, &ports, |_, _, _| Ok(Way::Direct))?;
        self.within_families(
            goals,
            &format!("pod {}", pod.key),
            pod.ips.iter().copied().map(Family::from_address),
        )
    }

    /// Addresses of a node, or one that may be anybody's.
    fn addresses(&self, what: &str, addresses: &[IpAddr]) -> Found {
        // Addresses and ports of Services are the same on all nodes.
        let anywhere = self.world.desired(self.client.node.or(self.node).unwrap_or_else(|| Name::new("")));
        let wanted = |port: &PortNumber| self.to.protocol.is_none_or(|protocol| protocol == port.1);
        let mut ports = self.served_ports(&anywhere, addresses);
        ports.retain(wanted);
        match &self.to.port {
            None => {}
            Some(Port::Number(number)) => ports.retain(|port| port.0 == number.get()),
            Some(Port::Name(name)) => {
                let message = format!("{what}: an address has no port named {name}; say its number");
                return Err(ExplainError::asked(FLAG, message));
            }
        }
        if ports.is_empty() {
            ports = self.numbers(what, addresses)?;
        }
        let mut goals = self
            .all(addresses, &ports, |address, port, protocol| self.way(&anywhere, address, port, protocol))?;
        // Who names a node port of a Service of one family does not mean the node's own port in the other.
        let led: Vec<PortNumber> =
            goals.iter().filter(|goal| goal.is_led()).map(|goal| (goal.port, goal.protocol)).collect();
        goals.retain(|goal| goal.is_led() || !led.contains(&(goal.port, goal.protocol)));
        self.within_families(goals, what, addresses.iter().copied().map(Family::from_address))
    }

    /// Ports that Services have at these addresses.
    fn served_ports(&self, anywhere: &Desired, addresses: &[IpAddr]) -> Vec<PortNumber> {
        let mut found = Vec::new();
        for port in anywhere.ports() {
            for address in addresses {
                if entry_at(port, *address).is_some() {
                    found.push((port.port.get(), port.name.protocol));
                }
                if let (Some(node_port), Some(_)) = (port.node_port, self.node_of(*address)) {
                    found.push((node_port.get(), port.name.protocol));
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// What is at an address and port.
    fn way(
        &self,
        anywhere: &Desired,
        address: IpAddr,
        number: u16,
        protocol: Protocol,
    ) -> Result<Way, ExplainError> {
        let at = |port: &&ServicePort| port.name.protocol == protocol && entry_at(port, address).is_some();
        if let Some(found) = anywhere.ports().filter(at).find(|port| port.port.get() == number) {
            let entry = entry_at(found, address).unwrap_or(Entry::ClusterIp);
            return self.led_by(self.leading_node()?, found, entry);
        }
        let unserved = Unserved { world: self.world, anywhere, address, number, protocol };
        if let Some(node) = self.node_of(address) {
            let has = |port: &&ServicePort| {
                let own = port.node_port.is_some_and(|node_port| node_port.get() == number);
                own && port.name.protocol == protocol && port.family == Family::from_address(address)
            };
            return match anywhere.ports().find(has) {
                Some(found) => self.led_by(node, found, Entry::NodePort),
                None => Ok(unserved.node_port(node).map_or(Way::Direct, Way::NotServed)),
            };
        }
        Ok(unserved.service_address().map_or(Way::Direct, Way::NotServed))
    }

    /// The node that has an address, as far as the client's own node sees it.
    fn node_of(&self, address: IpAddr) -> Option<Name> {
        let own = self.client.node.filter(|node| self.world.is_own_address(*node, address));
        own.or_else(|| self.world.node_at(address))
    }

    fn led_by(&self, node: Name, found: &ServicePort, entry: Entry) -> Result<Way, ExplainError> {
        let desired = self.world.desired(node);
        let ports = desired.services().get(&found.name.service).cloned().unwrap_or_default();
        let own = ports.iter().find(|port| port.name == found.name && port.family == found.family);
        Ok(Way::Service { port: Box::new(own.unwrap_or(found).clone()), entry, node })
    }

    /// The node whose rules lead the client's connections to addresses of Services.
    fn leading_node(&self) -> Result<Name, ExplainError> {
        if self.client.kind != ClientKind::Outside {
            let missing =
                || ExplainError::asked("--from", format!("{} is on no node yet", self.client.name()));
            return self.client.node.ok_or_else(missing);
        }
        let names = self.world.node_names();
        let own = crate::node::name(self.world.config).ok().filter(|name| names.contains(name));
        let only = names.first().copied().filter(|_| names.len() == 1);
        self.node.or(own).or(only).ok_or_else(|| {
            let message = format!(
                "the client is on no node, so say whose rules lead it: {}",
                listed(names.iter().map(|name| name.as_str()))
            );
            ExplainError::asked("--node", message)
        })
    }

    /// The ports asked for by number; without one, those that are known of these addresses.
    fn numbers(&self, what: &str, addresses: &[IpAddr]) -> Result<Vec<PortNumber>, ExplainError> {
        let known = self.world.ports_at(&addresses.iter().copied().collect());
        let wanted = |port: &&PortNumber| self.to.protocol.is_none_or(|protocol| protocol == port.1);
        if let Some(Port::Number(number)) = self.to.port {
            let same = known.iter().filter(wanted).filter(|port| port.0 == number.get());
            let found: Vec<PortNumber> = same.copied().collect();
            return Ok(match found.is_empty() {
                true => vec![(number.get(), self.to.protocol.unwrap_or_default())],
                false => found,
            });
        }
        let found: Vec<PortNumber> = known.iter().filter(wanted).copied().collect();
        if found.is_empty() {
            let message = format!("{what} is not known to have any port; say which, as in :80 or :53/udp");
            return Err(ExplainError::asked(FLAG, message));
        }
        Ok(found)
    }

    fn all(
        &self,
        addresses: &[IpAddr],
        ports: &[PortNumber],
        way: impl Fn(IpAddr, u16, Protocol) -> Result<Way, ExplainError>,
    ) -> Result<Vec<Goal>, ExplainError> {
        let mut goals = Vec::new();
        for family in self.families {
            // A connection to a node goes to its first address.
            let Some(address) = addresses.iter().copied().find(|ip| Family::from_address(*ip) == *family)
            else {
                continue;
            };
            for &(port, protocol) in ports {
                goals.push(Goal { address, port, protocol, via: way(address, port, protocol)? });
            }
        }
        Ok(goals)
    }

    /// If nothing is left, says that both ends have no family in common.
    fn within_families(&self, goals: Vec<Goal>, what: &str, its: impl Iterator<Item = Family>) -> Found {
        if !goals.is_empty() {
            return Ok((goals, None));
        }
        let words = |families: &mut dyn Iterator<Item = Family>| {
            let mut all: Vec<&str> = families.map(Family::as_str).collect();
            all.sort_unstable();
            all.dedup();
            all.join(" and ")
        };
        let asked = words(&mut self.families.iter().copied());
        Ok((
            Vec::new(),
            Some(format!(
                "{what} has {} only, and {asked} is asked for or what the client has",
                words(&mut { its })
            )),
        ))
    }

    /// ` 80/udp`, as far as it was said.
    fn asked_port(&self) -> String {
        let port = self.to.port.as_ref().map(|port| format!(" {port}")).unwrap_or_default();
        let protocol = self.to.protocol.map(|protocol| format!("/{protocol}")).unwrap_or_default();
        format!("{port}{protocol}")
    }
}

fn why_ignored(ignored: NotProxiedReason) -> &'static str {
    match ignored {
        NotProxiedReason::NoClusterIp | NotProxiedReason::Headless => {
            "it is headless or has no cluster IP yet; its name leads to its pods, so explain one of these"
        }
        NotProxiedReason::ExternalName => "it is of type ExternalName, which is a matter of DNS alone",
        NotProxiedReason::OtherProxy => {
            "it bears the label service.kubernetes.io/service-proxy-name, so another proxy does"
        }
    }
}
