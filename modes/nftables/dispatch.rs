//! How a packet finds what serves it: by trying.
//!
//! ```text
//! service-ips    jump affinity-ips                                      vmap @affinity-ips: a chain of the Service's own
//!                from pods, in @local-ips    jump service-ips-inside    policy Local is for what comes from outside
//!                jump service-1                                         has it one endpoint?
//!                jump service-3                                         has it three?
//!                jump external-3
//!                …                                                      and all once more
//! ```
//! A map that tells which chain to go to would be shorter. But for every verdict that is added, the kernel looks at all
//! verdicts of all maps in use (`nft_table_validate`), and for every rule that is added and looks into a map, at all of that
//! map (`nf_tables_bind_set`). Here a Service with one endpoint more changes elements only, and for a number of endpoints
//! that no Service had, a map is made that is empty when the rule comes.
//!
//! While a packet is under way, its Service may go from a map that is still to be looked into, to one that was. So all is
//! tried twice.

use portcullis_netlink::nf_tables::{Chain, Rule, Verdict};

use super::endpoint_map::{EndpointMap, FrontendKey, MapKind};
use super::names::{
    AFFINE_IPS, AFFINE_NODE_PORTS, INSIDE_IPS, INSIDE_NODE_PORTS, LOCAL_IPS, LOCAL_NODE_PORTS, SERVICE_IPS,
    SERVICE_NODE_PORTS,
};
use super::settings::Settings;

/// Something to try, in the order in which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DispatchStep {
    /// Whether it has affinity.
    Affinity(FrontendKey),
    /// Whether only what comes from outside is kept to local endpoints.
    LocalPolicy(FrontendKey),
    /// Whether it has so many endpoints.
    EndpointMap(EndpointMap),
}

impl DispatchStep {
    pub(super) fn front(self) -> FrontendKey {
        match self {
            DispatchStep::Affinity(front) | DispatchStep::LocalPolicy(front) => front,
            DispatchStep::EndpointMap(picking) => picking.front,
        }
    }
}

impl FrontendKey {
    /// The set of what is served, and the chain that serves it.
    pub(super) fn served(self) -> &'static str {
        match self {
            FrontendKey::Address => SERVICE_IPS,
            FrontendKey::NodePort => SERVICE_NODE_PORTS,
        }
    }

    /// The chain that serves pods and this node, where only what comes from outside is kept to local endpoints.
    pub(super) fn inside(self) -> &'static str {
        match self {
            FrontendKey::Address => INSIDE_IPS,
            FrontendKey::NodePort => INSIDE_NODE_PORTS,
        }
    }

    /// The set of what is served that way.
    pub(super) fn part_outside(self) -> &'static str {
        match self {
            FrontendKey::Address => LOCAL_IPS,
            FrontendKey::NodePort => LOCAL_NODE_PORTS,
        }
    }

    /// The map to chains of one Service, and the chain that looks into it.
    pub(super) fn affine(self) -> &'static str {
        match self {
            FrontendKey::Address => AFFINE_IPS,
            FrontendKey::NodePort => AFFINE_NODE_PORTS,
        }
    }
}

/// The chains of a front: the one that tries all, and the one for what is inside.
pub(super) fn chains(
    front: FrontendKey,
    trials: impl Iterator<Item = DispatchStep> + Clone,
    settings: &Settings,
) -> [(&'static str, Chain); 2] {
    let trials = trials.filter(|trial| trial.front() == front);
    let is_inside = |trial: &DispatchStep| {
        matches!(trial, DispatchStep::EndpointMap(EndpointMap { purpose: MapKind::Internal, .. }))
    };
    let rules = |trial: DispatchStep| match trial {
        DispatchStep::Affinity(front) => vec![jump(Rule::new(), front.affine())],
        DispatchStep::LocalPolicy(front) => part_outside(front, settings),
        DispatchStep::EndpointMap(picking) => vec![jump(Rule::new(), &picking.name())],
    };
    let inside: Vec<Rule> = trials.clone().filter(is_inside).flat_map(rules).collect();
    let outside: Vec<Rule> = trials.clone().filter(|trial| !is_inside(trial)).flat_map(rules).collect();
    // One that is alone was not in another one before.
    let mut again = if trials.count() > 1 { outside.clone() } else { Vec::new() };
    if let Some(first) = again.first_mut() {
        *first = first.clone().with_comment("again, as it may be another one by now");
    }
    [(front.served(), Chain::new([outside, again].concat())), (front.inside(), Chain::new(inside))]
}

fn jump(rule: Rule, chain: &str) -> Rule {
    rule.then(Verdict::jump(chain))
}

/// Sends pods and this node to what they would find inside of the cluster.
fn part_outside(front: FrontendKey, settings: &Settings) -> Vec<Rule> {
    let is_in = |rule: Rule| rule.is_in(&front.key(settings), front.part_outside());
    let local = || is_in(Rule::new().from_local());
    let pods = settings.of_pods(Rule::new(), false).map(is_in);
    let mut rules = Vec::new();
    rules.extend(pods.map(|rule| jump(rule, front.inside()).with_comment("short-circuit pod traffic")));
    rules.push(local().set_mark(settings.mark).with_comment("masquerade local traffic"));
    rules.push(jump(local(), front.inside()).with_comment("short-circuit local traffic"));
    rules
}
