//! The chains that Services share, each a function of its name.

use std::fmt;
use std::sync::Arc;

use portcullis_netlink::nf_tables::{Chain, Expression, Field, Key, LookupResult, Register, Rule};
use sha2::{Digest, Sha256};

use super::names::{ENDPOINTS, INSIDE_CHAINS, INSIDE_IPS, INSIDE_NODE_PORTS, NODE_PORT_ENDPOINTS};
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

    /// The number by which maps lead to it: what it does, and for how many endpoints.
    pub(super) fn number(&self) -> Key {
        let before = match self.before {
            Before::Nothing => 0,
            Before::Masquerade => 1,
            Before::PartOutside => 2,
        };
        let (view, front) = (u32::from(self.view == View::Local), u32::from(self.front == Front::NodePort));
        Key::new().number(before | view << 2 | front << 3).number(self.endpoints.into())
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
                let inside = |rule: Rule| serve_by(rule, &self.key(settings), self.inside(), INSIDE_CHAINS);
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

/// The number by which maps lead to a chain of one Service. The first bit tells it from those that are shared.
pub(super) fn number_of_own(chain: &str) -> Key {
    let digest = Sha256::digest(chain);
    let part = |at: usize| u32::from_be_bytes(digest[at..at + 4].try_into().expect("four bytes of 32"));
    Key::new().number(part(0) | 1 << 31).number(part(4))
}

/// Leads to the one of some chains whose number a map has for what a packet shows. The number stands between, as the kernel looks at
/// every element of every map of verdicts whenever one of them is added: that must not be as many as there are Services.
pub(super) fn serve_by(rule: Rule, key: &[Field], map: &'static str, chains: &'static str) -> Rule {
    let at = Register::FIRST;
    rule.load(key, at)
        .push(Expression::Lookup { set: map.into(), key: at, result: LookupResult::Data(at) })
        .push(Expression::Lookup { set: chains.into(), key: at, result: LookupResult::Verdict })
}
