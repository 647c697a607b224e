//! Endpoint maps: one map and one chain for all Services that have N endpoints.
//!
//! ```text
//! chain service-3    dnat to daddr . protocol . dport . (random of 3)   map @service-3
//! @service-3         10.96.0.10 . tcp . 80 . 0 : 10.244.1.7 . 8080      elements of all Services with three endpoints
//! ```

use std::fmt;
use std::sync::Arc;

use portcullis_cluster::TrafficPolicy;
use portcullis_cluster::desired::{Endpoint, ServicePort};
use portcullis_netlink::nf_tables::{Chain, DataType, Expression, Field, Register, Rule, Set, SetSpec};

use super::settings::Settings;

/// The packet fields by which a frontend is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum FrontendKey {
    /// Destination address, protocol and port: cluster IPs, external IPs, load balancer IPs.
    Address,
    /// Protocol and port: node ports.
    NodePort,
}

impl FrontendKey {
    pub(super) const ALL: [FrontendKey; 2] = [FrontendKey::Address, FrontendKey::NodePort];

    /// Returns the fields to look up.
    pub(super) fn fields(self, settings: &Settings) -> Vec<Field> {
        match self {
            FrontendKey::NodePort => vec![Field::PROTOCOL, Field::DestinationPort],
            FrontendKey::Address => vec![settings.destination(), Field::PROTOCOL, Field::DestinationPort],
        }
    }

    /// Returns the types of the fields.
    pub(super) fn types(self, settings: &Settings) -> Vec<DataType> {
        let port = [DataType::InetProto, DataType::InetService];
        match self {
            FrontendKey::NodePort => port.into(),
            FrontendKey::Address => [&[settings.address()], &port[..]].concat(),
        }
    }

    /// Returns the length of the fields in a set key, in bytes.
    pub(super) fn length(self, settings: &Settings) -> usize {
        self.types(settings).into_iter().map(|part| part.length().next_multiple_of(4)).sum()
    }
}

/// Returns the endpoints that a traffic policy selects, in the order of their numbers in maps.
pub(super) fn numbered_endpoints(port: &ServicePort, policy: TrafficPolicy) -> Vec<Endpoint> {
    port.endpoints.for_policy(policy).take(MAX_ENDPOINTS).collect()
}

/// The number of endpoints of a Service that are used; further ones are ignored.
pub(super) const MAX_ENDPOINTS: usize = u16::MAX as usize;

/// The clients of an endpoint map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum MapKind {
    /// Clients whose source address is kept.
    Direct,
    /// External clients of a frontend with traffic policy Cluster: masqueraded, because the endpoint may be on any node.
    Masqueraded,
    /// Cluster-internal clients (pods and this node) of an external frontend with traffic policy Local.
    Internal,
}

/// A map of endpoints by random number, and the chain that looks it up; both have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EndpointMap {
    pub(super) key: FrontendKey,
    pub(super) kind: MapKind,
    /// The number of endpoints of each Service in the map.
    pub(super) count: u16,
}

impl MapKind {
    pub(super) const ALL: [MapKind; 3] = [MapKind::Direct, MapKind::Masqueraded, MapKind::Internal];
}

impl EndpointMap {
    /// Returns the start of the names of all maps of a kind.
    pub(super) fn prefix(key: FrontendKey, kind: MapKind) -> &'static str {
        match (key, kind) {
            (FrontendKey::Address, MapKind::Direct) => "service",
            (FrontendKey::Address, MapKind::Masqueraded) => "external",
            (FrontendKey::Address, MapKind::Internal) => "inside",
            (FrontendKey::NodePort, MapKind::Direct) => "nodeport-local",
            (FrontendKey::NodePort, MapKind::Masqueraded) => "nodeport",
            (FrontendKey::NodePort, MapKind::Internal) => "nodeport-inside",
        }
    }

    /// Returns the name of the chain and the map.
    pub(super) fn name(self) -> Arc<str> {
        self.to_string().into()
    }

    /// Parses a name that [`EndpointMap::name`] returned.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        let count = name.rsplit_once('-')?.1.parse().ok()?;
        let maps = FrontendKey::ALL
            .into_iter()
            .flat_map(|key| MapKind::ALL.map(|kind| EndpointMap { key, kind, count }));
        maps.into_iter().find(|map| *map.name() == *name)
    }

    /// Returns the map without elements.
    pub(super) fn map(self, settings: &Settings) -> Set {
        let mut key = self.key.types(settings);
        key.push(DataType::Mark);
        let spec = SetSpec::new(&key).with_data(&[settings.address(), DataType::InetService]);
        Set::new(spec.with_comment("endpoints by number"))
    }

    /// Returns the chain.
    pub(super) fn chain(self, settings: &Settings) -> Chain {
        let mut key = self.key.fields(settings);
        key.push(Field::Random { modulus: self.count.into(), offset: 0 });
        let (endpoint, free) = (Register::FIRST, Register(8));
        let rule = Rule::new().map(&key, self.name(), endpoint);
        // After the lookup: a packet that is not in the map must not be marked.
        let rule = match self.kind {
            MapKind::Masqueraded => rule.set_mark_in(free, settings.mark),
            MapKind::Direct | MapKind::Internal => rule,
        };
        match self.count_maps() {
            None => Chain::new(vec![dnat(rule, settings, endpoint)]),
            // The priority is the number of endpoints.
            Some(_) => {
                Chain::new(vec![dnat(rule.set_priority(0), settings, endpoint), Rule::new().set_priority(0)])
            }
        }
    }
}

impl fmt::Display for EndpointMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", EndpointMap::prefix(self.key, self.kind), self.count)
    }
}

/// Appends a `dnat` to the address in `address` and the port in the register after it.
pub(super) fn dnat(rule: Rule, settings: &Settings, address: Register) -> Rule {
    rule.push(Expression::Dnat {
        family: settings.kernel_family(),
        address,
        port: Some(address.after(settings.address().length())),
    })
}
