//! EndpointMap an endpoint: for each number of endpoints that Services have, a map of them and a chain that draws from it.
//!
//! ```text
//! chain service-3    dnat to daddr . protocol . dport . (random of 3)   map @service-3
//! @service-3         10.96.0.10 . tcp . 80 . 0 : 10.244.1.7 . 8080      of all Services with three
//! ```

use std::fmt;
use std::sync::Arc;

use portcullis_cluster::desired::{Endpoint, ServicePort};
use portcullis_netlink::nf_tables::{Chain, DataType, Expression, Field, Register, Rule, Set, SetSpec};

use super::settings::Settings;

/// By what a Service is reached, and so by what it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum FrontendKey {
    /// An address: its cluster IP, an external or a load balancer's.
    Address,
    /// A node port.
    NodePort,
}

impl FrontendKey {
    /// What a packet shows of the Service.
    pub(super) fn key(self, settings: &Settings) -> Vec<Field> {
        match self {
            FrontendKey::NodePort => vec![Field::PROTOCOL, Field::DestinationPort],
            FrontendKey::Address => vec![settings.destination(), Field::PROTOCOL, Field::DestinationPort],
        }
    }

    /// The types of that.
    pub(super) fn types(self, settings: &Settings) -> Vec<DataType> {
        let port = [DataType::InetProto, DataType::InetService];
        match self {
            FrontendKey::NodePort => port.into(),
            FrontendKey::Address => [&[settings.address()], &port[..]].concat(),
        }
    }

    /// Bytes of it in a key.
    pub(super) fn length(self, settings: &Settings) -> usize {
        self.types(settings).into_iter().map(|part| part.length().next_multiple_of(4)).sum()
    }
}

/// Whose endpoints take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrafficPolicy {
    /// Those of policy Cluster.
    Cluster,
    /// Those of policy Local.
    Local,
}

impl TrafficPolicy {
    /// A port's endpoints, in the order in which they are numbered.
    pub(super) fn endpoints(self, port: &ServicePort) -> Vec<Endpoint> {
        let chosen: Vec<Endpoint> = match self {
            TrafficPolicy::Cluster => port.endpoints.for_cluster().copied().collect(),
            TrafficPolicy::Local => port.endpoints.for_local().copied().collect(),
        };
        chosen.into_iter().take(MOST_ENDPOINTS).collect()
    }
}

/// The most endpoints of a Service that are used.
pub(super) const MOST_ENDPOINTS: usize = u16::MAX as usize;

/// For whom endpoints are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum MapKind {
    /// For all that may be answered directly.
    Direct,
    /// For what must be masqueraded, as it comes from outside and the endpoint may be anywhere.
    Masqueraded,
    /// For pods and this node, where what comes from outside is kept to local endpoints.
    Internal,
}

/// A chain that picks an endpoint, and its map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EndpointMap {
    pub(super) front: FrontendKey,
    pub(super) purpose: MapKind,
    /// How many endpoints.
    pub(super) count: u16,
}

impl EndpointMap {
    /// The name of the chain, and of the map.
    pub(super) fn name(self) -> Arc<str> {
        self.to_string().into()
    }

    /// The one of this name.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        let count = name.rsplit_once('-')?.1.parse().ok()?;
        let fronts = [FrontendKey::Address, FrontendKey::NodePort];
        let purposes = [MapKind::Direct, MapKind::Masqueraded, MapKind::Internal];
        let all = fronts
            .into_iter()
            .flat_map(|front| purposes.map(|purpose| EndpointMap { front, purpose, count }));
        all.into_iter().find(|picking| *picking.name() == *name)
    }

    /// The map, without elements.
    pub(super) fn map(self, settings: &Settings) -> Set {
        let mut key = self.front.types(settings);
        key.push(DataType::Mark);
        let spec = SetSpec::new(&key).with_data(&[settings.address(), DataType::InetService]);
        Set::new(spec.with_comment("endpoints by number"))
    }

    /// The chain.
    pub(super) fn chain(self, settings: &Settings) -> Chain {
        let mut key = self.front.key(settings);
        key.push(Field::Random { modulus: self.count.into(), offset: 0 });
        let (found, beyond) = (Register::FIRST, Register(8));
        let rule = Rule::new().map(&key, self.name(), found);
        // What is marked must have been found, too.
        let rule = match self.purpose {
            MapKind::Masqueraded => rule.set_mark_in(beyond, settings.mark),
            MapKind::Direct | MapKind::Internal => rule,
        };
        Chain::new(vec![translate(rule, settings, found)])
    }
}

impl fmt::Display for EndpointMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.front, self.purpose) {
            (FrontendKey::Address, MapKind::Direct) => "service",
            (FrontendKey::Address, MapKind::Masqueraded) => "external",
            (FrontendKey::Address, MapKind::Internal) => "inside",
            (FrontendKey::NodePort, MapKind::Direct) => "nodeport-local",
            (FrontendKey::NodePort, MapKind::Masqueraded) => "nodeport",
            (FrontendKey::NodePort, MapKind::Internal) => "nodeport-inside",
        };
        write!(f, "{what}-{}", self.count)
    }
}

/// Sends the packet to the address and port in registers.
pub(super) fn translate(rule: Rule, settings: &Settings, address: Register) -> Rule {
    rule.push(Expression::Dnat {
        family: settings.kernel_family(),
        address,
        port: Some(address.after(settings.address().length())),
    })
}
