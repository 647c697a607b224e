//! Names of pods, nodes and Services by address, from what the loop knows.
//!
//! Names are looked up for a whole batch of events, and remembered for a few seconds, so that many events of the same peers
//! cost one query.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::cluster_network_policy::Tier;
use portcullis_cluster::desired::{Desired, FrontendAddress};
use portcullis_cluster::labels::Labels;
use portcullis_cluster::{Family, Index, Kind, NamespacedName};

use super::document::ObjectRef;
use super::raw_event::RawEvent;

/// How long a name is remembered. Addresses of pods are used again.
const LIFETIME: Duration = Duration::from_secs(3);

/// The greatest number of remembered addresses, and of remembered frontends.
const MAX_REMEMBERED: usize = 20_000;

/// Address, protocol and port of a frontend.
pub(super) type FrontendKey = (IpAddr, u8, u16);

/// The names of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AddressNames {
    /// The pod that has it.
    pub(super) pod: Option<ObjectRef>,
    /// The node of the pod, or the node that has it.
    pub(super) node: Option<Arc<str>>,
    /// A Service of which it is an endpoint.
    pub(super) service: Option<ObjectRef>,
    /// The labels of the pod.
    pub(super) labels: Option<Arc<Labels>>,
}

/// The Service port of a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FrontendNames {
    pub(super) service: ObjectRef,
    pub(super) port_name: Arc<str>,
}

/// Addresses and frontends whose names are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    addresses: HashSet<IpAddr>,
    frontends: HashSet<FrontendKey>,
}

impl Wanted {
    /// Returns true if no name is wanted.
    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.frontends.is_empty()
    }
}

/// The response to [`Wanted`]. What has no name is missing.
#[derive(Debug, Default)]
pub(super) struct Found {
    addresses: HashMap<IpAddr, AddressNames>,
    frontends: HashMap<FrontendKey, FrontendNames>,
    tiers: HashMap<Arc<str>, Arc<str>>,
    /// The pods of the cluster are known.
    has_pods: bool,
}

/// Remembered names.
#[derive(Debug, Default)]
pub(super) struct NameCache {
    addresses: HashMap<IpAddr, (Instant, AddressNames)>,
    frontends: HashMap<FrontendKey, (Instant, Option<FrontendNames>)>,
    /// The tiers of ClusterNetworkPolicies.
    tiers: HashMap<Arc<str>, Arc<str>>,
    /// Whether the pods of the cluster are known, as of the last response.
    has_pods: Option<bool>,
}

impl NameCache {
    /// Returns the addresses and frontends of events whose names are not remembered.
    pub(super) fn missing(&self, events: &[RawEvent], now: Instant) -> Wanted {
        let mut wanted = Wanted::default();
        for event in events {
            for address in event.addresses() {
                if !is_fresh(self.addresses.get(&address), now) {
                    wanted.addresses.insert(address);
                }
            }
            if let Some(frontend) = event.frontend()
                && !is_fresh(self.frontends.get(&frontend), now)
            {
                wanted.frontends.insert(frontend);
            }
        }
        wanted
    }

    /// Remembers a response, also that something has no name.
    pub(super) fn add(&mut self, wanted: &Wanted, mut found: Found, now: Instant) {
        if self.addresses.len() + wanted.addresses.len() > MAX_REMEMBERED {
            self.addresses.clear();
        }
        if self.frontends.len() + wanted.frontends.len() > MAX_REMEMBERED {
            self.frontends.clear();
        }
        self.tiers = found.tiers;
        self.has_pods = Some(found.has_pods);
        for address in &wanted.addresses {
            let names = found.addresses.remove(address).unwrap_or_default();
            self.addresses.insert(*address, (now, names));
        }
        for frontend in &wanted.frontends {
            self.frontends.insert(*frontend, (now, found.frontends.remove(frontend)));
        }
    }

    /// Returns the names of an address.
    pub(super) fn address(&self, address: IpAddr) -> AddressNames {
        self.addresses.get(&address).map(|(_, names)| names.clone()).unwrap_or_default()
    }

    /// Returns the Service port of a frontend.
    pub(super) fn frontend(&self, frontend: &FrontendKey) -> Option<&FrontendNames> {
        self.frontends.get(frontend)?.1.as_ref()
    }

    /// Returns the tier of a ClusterNetworkPolicy.
    pub(super) fn tier(&self, policy: &str) -> Option<Arc<str>> {
        self.tiers.get(policy).cloned()
    }

    /// Returns true if the daemon does not know the pods of the cluster, so that no event has the name or labels of one.
    pub(super) fn lacks_pods(&self) -> bool {
        self.has_pods == Some(false)
    }

    /// Forgets all names.
    pub(super) fn clear(&mut self) {
        *self = NameCache::default();
    }
}

fn is_fresh<T>(entry: Option<&(Instant, T)>, now: Instant) -> bool {
    entry.is_some_and(|(at, _)| now.duration_since(*at) < LIFETIME)
}

/// Looks names up. The cost follows the number of objects in the cluster, so it runs once for many events.
pub(super) fn look_up(wanted: &Wanted, index: &Index, desired: Option<&Desired>) -> Found {
    let mut found = Found { has_pods: index.is_listed(Kind::Pod), ..Found::default() };
    for pod in index.pods().filter(|pod| !pod.is_finished && !pod.host_network) {
        for ip in pod.ips.iter().filter(|ip| wanted.addresses.contains(*ip)) {
            let names = found.addresses.entry(*ip).or_default();
            // Of two pods with one address, the one that is not terminating has it.
            if names.pod.is_none() || !pod.is_terminating {
                names.pod = Some(object(&pod.key));
                names.node = pod.node.as_ref().map(|node| node.as_str().into());
                names.labels = Some(Arc::new(pod.labels.clone()));
            }
        }
    }
    let mut node_addresses = HashSet::new();
    for node in index.nodes() {
        for ip in node.ips().filter(|ip| wanted.addresses.contains(ip)) {
            node_addresses.insert(ip);
            let names = found.addresses.entry(ip).or_default();
            names.node.get_or_insert_with(|| node.name.as_str().into());
        }
    }
    found.tiers = index
        .cluster_network_policies()
        .map(|policy| {
            let tier = match policy.tier {
                Tier::Admin => "Admin",
                Tier::Baseline => "Baseline",
            };
            ((*policy.key.name).into(), tier.into())
        })
        .collect();
    if let Some(desired) = desired {
        add_services(wanted, desired, &node_addresses, &mut found);
    }
    found
}

fn add_services(wanted: &Wanted, desired: &Desired, node_addresses: &HashSet<IpAddr>, found: &mut Found) {
    for port in desired.ports() {
        let names = || FrontendNames {
            service: object(&port.name.service),
            port_name: port.name.port.as_str().into(),
        };
        let protocol = port.name.protocol.number();
        for frontend in port.frontends() {
            match frontend.address {
                FrontendAddress::NodePort { port: number, family, .. } => {
                    for ip in node_addresses.iter().filter(|ip| Family::from_address(**ip) == family) {
                        let key = (*ip, protocol, number);
                        if wanted.frontends.contains(&key) {
                            found.frontends.entry(key).or_insert_with(names);
                        }
                    }
                }
                address => {
                    let key = address.ip().map(|ip| (ip, protocol, address.port()));
                    if let Some(key) = key.filter(|key| wanted.frontends.contains(key)) {
                        found.frontends.entry(key).or_insert_with(names);
                    }
                }
            }
        }
        for endpoint in port.endpoints.serving().iter() {
            let ip = endpoint.socket().ip();
            if wanted.addresses.contains(&ip) {
                let names = found.addresses.entry(ip).or_default();
                names.service.get_or_insert_with(|| object(&port.name.service));
            }
        }
    }
}

fn object(name: &NamespacedName) -> ObjectRef {
    ObjectRef { namespace: name.namespace.as_str().into(), name: (*name.name).into() }
}
