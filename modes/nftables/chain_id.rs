//! The chains that Services share, each a function of its name.

use std::fmt;
use std::sync::Arc;

use portcullis_netlink::nf_tables::{Chain, Expression, Field, LookupResult, Register, Rule, Verdict};

use super::affinity;
use super::names::{
    CLUSTER_IPS_VIEW, CLUSTER_NODE_PORTS_VIEW, ENDPOINTS, EXTERNAL_SERVICES, NODE_PORT_SERVICES,
};
use super::settings::Settings;

/// By what a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Front {
    /// Its cluster IP, which is also what all its elements are found by.
    Service,
    /// An external or load balancer's address.
    External,
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
    /// How long a client stays with its endpoint, in seconds.
    pub(super) affinity: Option<u32>,
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
                let pods = settings.from_pods(Rule::new(), false);
                rules.extend(pods.map(|rule| inside(rule).remark("short-circuit pod traffic")));
                let local = Rule::new().from_local();
                rules.push(local.clone().set_mark(settings.mark).remark("masquerade local traffic"));
                rules.push(inside(local).remark("short-circuit local traffic"));
            }
        }
        if self.endpoints > 0 {
            match self.affinity {
                None => rules.push(self.balance(settings)),
                Some(seconds) => rules.extend(affinity::rules(self, settings, seconds)),
            }
        }
        Chain::of(rules)
    }

    /// What a packet shows of the Service.
    fn key(&self, settings: &Settings) -> Vec<Field> {
        match self.front {
            Front::NodePort => vec![Field::PROTOCOL, Field::DestinationPort],
            _ => vec![settings.destination(), Field::PROTOCOL, Field::DestinationPort],
        }
    }

    /// The map in which those inside of the cluster find the Service.
    fn inside(&self) -> &'static str {
        match self.front {
            Front::NodePort => CLUSTER_NODE_PORTS_VIEW,
            _ => CLUSTER_IPS_VIEW,
        }
    }

    /// Puts cluster IP, protocol and port into registers; gives the one behind them.
    pub(super) fn load_service(&self, rule: Rule, settings: &Settings, to: Register) -> (Rule, Register) {
        let rule = rule.load(&self.key(settings), to);
        let behind = to.after(settings.address().length()).after(4).after(4);
        let map = match self.front {
            Front::Service => return (rule, behind),
            Front::External => EXTERNAL_SERVICES,
            Front::NodePort => NODE_PORT_SERVICES,
        };
        let result = LookupResult::Data(to);
        (rule.push(Expression::Lookup { set: map.into(), key: to, result }), behind)
    }

    /// Puts the address and port of an endpoint drawn at random where its number would be, behind the Service.
    pub(super) fn load_endpoint(&self, rule: Rule, service: Register, number: Register) -> Rule {
        let offset = first_number(self.view, self.endpoints);
        rule.push(Expression::Random { modulus: self.endpoints.into(), offset, to: number }).push(
            Expression::Lookup { set: ENDPOINTS.into(), key: service, result: LookupResult::Data(number) },
        )
    }

    fn balance(&self, settings: &Settings) -> Rule {
        let service = Register::FIRST;
        let (rule, number) = self.load_service(Rule::new(), settings, service);
        let rule = self.load_endpoint(rule, service, number);
        translate(rule, settings, number)
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
        f.write_str(match self.front {
            Front::Service => "service",
            Front::External => "external",
            Front::NodePort => "nodeport",
        })?;
        let word = match (self.front, self.view, self.before) {
            (_, View::Local, _) => "-local",
            (Front::External | Front::NodePort, View::Cluster, Before::Nothing) => "-inside",
            _ => "",
        };
        write!(f, "{word}-{}", self.endpoints)?;
        match self.affinity.filter(|_| self.endpoints > 0) {
            Some(seconds) => write!(f, "-affinity-{seconds}"),
            None => Ok(()),
        }
    }
}

/// To this chain.
impl From<ChainId> for Verdict {
    fn from(chain: ChainId) -> Self {
        Verdict::Goto(chain.name())
    }
}
