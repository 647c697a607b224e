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

use super::names::{
    AFFINE_IPS, AFFINE_NODE_PORTS, INSIDE_IPS, INSIDE_NODE_PORTS, LOCAL_IPS, LOCAL_NODE_PORTS, SERVICE_IPS,
    SERVICE_NODE_PORTS,
};
use super::picking::{Front, Picking, Purpose};
use super::settings::Settings;

/// Something to try, in the order in which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trial {
    /// Whether it has affinity.
    Affinity(Front),
    /// Whether only what comes from outside is kept to local endpoints.
    PartOutside(Front),
    /// Whether it has so many endpoints.
    Pick(Picking),
}

impl Trial {
    pub(super) fn front(self) -> Front {
        match self {
            Trial::Affinity(front) | Trial::PartOutside(front) => front,
            Trial::Pick(picking) => picking.front,
        }
    }
}

impl Front {
    /// The set of what is served, and the chain that serves it.
    pub(super) fn served(self) -> &'static str {
        match self {
            Front::Address => SERVICE_IPS,
            Front::NodePort => SERVICE_NODE_PORTS,
        }
    }

    /// The chain that serves pods and this node, where only what comes from outside is kept to local endpoints.
    pub(super) fn inside(self) -> &'static str {
        match self {
            Front::Address => INSIDE_IPS,
            Front::NodePort => INSIDE_NODE_PORTS,
        }
    }

    /// The set of what is served that way.
    pub(super) fn part_outside(self) -> &'static str {
        match self {
            Front::Address => LOCAL_IPS,
            Front::NodePort => LOCAL_NODE_PORTS,
        }
    }

    /// The map to chains of one Service, and the chain that looks into it.
    pub(super) fn affine(self) -> &'static str {
        match self {
            Front::Address => AFFINE_IPS,
            Front::NodePort => AFFINE_NODE_PORTS,
        }
    }
}

/// The chains of a front: the one that tries all, and the one for what is inside.
pub(super) fn chains(
    front: Front,
    trials: impl Iterator<Item = Trial> + Clone,
    settings: &Settings,
) -> [(&'static str, Chain); 2] {
    let trials = trials.filter(|trial| trial.front() == front);
    let is_inside = |trial: &Trial| matches!(trial, Trial::Pick(Picking { purpose: Purpose::Inside, .. }));
    let rules = |trial: Trial| match trial {
        Trial::Affinity(front) => vec![jump(Rule::new(), front.affine())],
        Trial::PartOutside(front) => part_outside(front, settings),
        Trial::Pick(picking) => vec![jump(Rule::new(), &picking.name())],
    };
    let inside: Vec<Rule> = trials.clone().filter(is_inside).flat_map(rules).collect();
    let outside: Vec<Rule> = trials.clone().filter(|trial| !is_inside(trial)).flat_map(rules).collect();
    // One that is alone was not in another one before.
    let mut again = if trials.count() > 1 { outside.clone() } else { Vec::new() };
    if let Some(first) = again.first_mut() {
        *first = first.clone().remark("again, as it may be another one by now");
    }
    [(front.served(), Chain::of([outside, again].concat())), (front.inside(), Chain::of(inside))]
}

fn jump(rule: Rule, chain: &str) -> Rule {
    rule.then(Verdict::jump(chain))
}

/// Sends pods and this node to what they would find inside of the cluster.
fn part_outside(front: Front, settings: &Settings) -> Vec<Rule> {
    let is_in = |rule: Rule| rule.is_in(&front.key(settings), front.part_outside());
    let local = || is_in(Rule::new().from_local());
    let pods = settings.of_pods(Rule::new(), false).map(is_in);
    let mut rules = Vec::new();
    rules.extend(pods.map(|rule| jump(rule, front.inside()).remark("short-circuit pod traffic")));
    rules.push(local().set_mark(settings.mark).remark("masquerade local traffic"));
    rules.push(jump(local(), front.inside()).remark("short-circuit local traffic"));
    rules
}
