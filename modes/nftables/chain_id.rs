//! The chains that Services share, each a function of its name.

use std::fmt;
use std::sync::Arc;

use portcullis_cluster::desired::{Endpoint, ServicePort};
use portcullis_netlink::nf_tables::{Chain, Expression, Field, LookupResult, Register, Rule, Verdict};

use super::names::{ENDPOINTS, INSIDE_IPS, INSIDE_NODE_PORTS, NODE_PORT_ENDPOINTS};
use super::settings::Settings;

/// By what a Service is reached, and so by what its endpoints are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Front {
    /// An address: its cluster IP, an external or a load balancer's.
    Address,
    /// A node port.
    NodePort,
}

/// Whose endpoints take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum View {
    /// Those of policy Cluster.
    Cluster,
    /// Those of policy Local.
    Local,
}

impl View {
    /// A port's endpoints, in the order in which they are numbered.
    pub(super) fn endpoints(self, port: &ServicePort) -> Vec<Endpoint> {
        let chosen: Vec<Endpoint> = match self {
            View::Cluster => port.endpoints.for_cluster().copied().collect(),
            View::Local => port.endpoints.for_local().copied().collect(),
        };
        chosen.into_iter().take(MOST_ENDPOINTS).collect()
    }
}

/// What a chain does before it picks an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Before {
    /// Nothing.
    Nothing,
    /// It asks for masquerading: the endpoint may be anywhere, and must answer by way of this node.
    Masquerade,
    /// It sends pods and this node to what they would find inside of the cluster: only what comes from outside is kept
    /// to local endpoints.
    PartOutside,
}

/// A chain for all Services of so many endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ChainId {
    pub(super) front: Front,
    pub(super) view: View,
    pub(super) before: Before,
    /// How many endpoints; 0 only if something is done before.
    pub(super) endpoints: u16,
}

/// Of the number by which an endpoint is found: the view, how many endpoints there are, and which of them it is. With
/// their count in it, packets that still count as many as there were find what was.
pub(super) fn first_number(view: View, endpoints: u16) -> u32 {
    let local = if view == View::Local { 1 << 31 } else { 0 };
    local | u32::from(endpoints) << 15
}

/// The most endpoints of a Service that are used: fifteen bits.
pub(super) const MOST_ENDPOINTS: usize = (1 << 15) - 1;

impl ChainId {
    pub(super) fn name(&self) -> Arc<str> {
        self.to_string().into()
    }

    /// The chain's rules.
    pub(super) fn render(&self, settings: &Settings) -> Chain {
        let mut rules = Vec::new();
        match self.before {
            Before::Nothing => {}
            Before::Masquerade => {
                rules.push(Rule::new().set_mark(settings.mark).remark("masquerade"));
            }
            Before::PartOutside => {
                let inside = |rule: Rule| rule.verdict_map(&self.key(settings), self.inside());
                let pods = settings.of_pods(Rule::new(), false);
                rules.extend(pods.map(|rule| inside(rule).remark("short-circuit pod traffic")));
                let local = Rule::new().from_local();
                rules.push(local.clone().set_mark(settings.mark).remark("masquerade local traffic"));
                rules.push(inside(local).remark("short-circuit local traffic"));
            }
        }
        if self.endpoints > 0 {
            let rule = self.load_endpoint(Rule::new(), settings, Register::FIRST);
            rules.push(translate(rule, settings, Register::FIRST));
        }
        Chain::of(rules)
    }

    /// What a packet shows of the Service.
    fn key(&self, settings: &Settings) -> Vec<Field> {
        match self.front {
            Front::NodePort => vec![Field::PROTOCOL, Field::DestinationPort],
            Front::Address => vec![settings.destination(), Field::PROTOCOL, Field::DestinationPort],
        }
    }

    /// The map in which those inside of the cluster find the Service.
    fn inside(&self) -> &'static str {
        match self.front {
            Front::NodePort => INSIDE_NODE_PORTS,
            Front::Address => INSIDE_IPS,
        }
    }

    /// Puts the address and port of an endpoint drawn at random into registers.
    fn load_endpoint(&self, rule: Rule, settings: &Settings, to: Register) -> Rule {
        let mut key = self.key(settings);
        let offset = first_number(self.view, self.endpoints);
        key.push(Field::Random { modulus: self.endpoints.into(), offset });
        let set = match self.front {
            Front::Address => ENDPOINTS,
            Front::NodePort => NODE_PORT_ENDPOINTS,
        };
        let look_up = Expression::Lookup { set: set.into(), key: to, result: LookupResult::Data(to) };
        rule.load(&key, to).push(look_up)
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

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let front = match (self.front, self.before) {
            (Front::NodePort, Before::Nothing) => "nodeport-inside",
            (Front::NodePort, _) => "nodeport",
            (Front::Address, Before::Nothing) => "service",
            (Front::Address, _) => "external",
        };
        let view = if self.view == View::Local { "-local" } else { "" };
        write!(f, "{front}{view}-{}", self.endpoints)
    }
}

/// To this chain.
impl From<ChainId> for Verdict {
    fn from(chain: ChainId) -> Self {
        Verdict::Goto(chain.name())
    }
}
