//! Dispatch: the chains that find the endpoint map of a frontend by looking it up in one map after another.
//!
//! ```text
//! service-ips    from pods, in @local-ips    jump service-ips-inside    internal clients of externalTrafficPolicy: Local
//!                in @affinity-ips            jump affinity-ips          clients of Services with session affinity
//!                jump service-1                                         Services with one endpoint
//!                jump service-3                                         Services with three endpoints
//!                jump external-3
//!                …                                                      and all once more
//! ```
//! Services with more than a few endpoints are found by their number before these ([`super::dispatch_by_count`]).
//!
//! One map from all frontends to chains would be shorter. But for each added verdict, the kernel walks the verdicts of all maps
//! in use (`nft_table_validate`), and for each added rule with a lookup, all elements of its map (`nf_tables_bind_set`).
//! With this layout a change of the number of endpoints changes only elements, and the map for a new number of endpoints is
//! empty when its rule is added.
//!
//! A transaction can move a Service to another map while a packet is in these chains: out of a map that the packet has not
//! reached into one that it has passed. So all steps come twice.

use std::collections::BTreeSet;

use portcullis_netlink::nf_tables::{Chain, Rule, Verdict};

use super::affinity;
use super::dispatch_by_count::CountMaps;
use super::endpoint_map::{EndpointMap, FrontendKey, MapKind};
use super::names::{
    INSIDE_IPS, INSIDE_NODE_PORTS, LOCAL_IPS, LOCAL_NODE_PORTS, SERVICE_IPS, SERVICE_NODE_PORTS,
};
use super::settings::Settings;

/// A jump of a dispatch chain. The order of the values is the order in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DispatchStep {
    /// To the chain for internal clients of frontends with external traffic policy Local.
    LocalPolicy(FrontendKey),
    /// To the chain that looks up the entries of clients of Services with session affinity.
    Affinity {
        /// The fields by which the frontends are looked up.
        key: FrontendKey,
        /// Internal clients of frontends with external traffic policy Local.
        is_internal: bool,
    },
    /// To the chain of an endpoint map.
    EndpointMap(EndpointMap),
    /// To the chain that updates entries with a timeout in seconds. It is reached after destination NAT, not from dispatch chains.
    AffinityUpdate(FrontendKey, u32),
}

impl DispatchStep {
    pub(super) fn key(self) -> FrontendKey {
        match self {
            DispatchStep::LocalPolicy(key)
            | DispatchStep::Affinity { key, .. }
            | DispatchStep::AffinityUpdate(key, _) => key,
            DispatchStep::EndpointMap(map) => map.key,
        }
    }

    /// Returns true if the step is in the dispatch chain for internal clients.
    fn is_internal(self) -> bool {
        match self {
            DispatchStep::Affinity { is_internal, .. } => is_internal,
            DispatchStep::EndpointMap(map) => map.kind == MapKind::Internal,
            DispatchStep::LocalPolicy(_) | DispatchStep::AffinityUpdate(..) => false,
        }
    }

    /// Returns the endpoint map of the step if it is of this kind.
    fn map_of(self, kind: MapKind) -> Option<EndpointMap> {
        match self {
            DispatchStep::EndpointMap(map) if map.kind == kind => Some(map),
            _ => None,
        }
    }
}

impl FrontendKey {
    /// Returns the set of all frontends, which is also the name of their dispatch chain.
    pub(super) fn frontends(self) -> &'static str {
        match self {
            FrontendKey::Address => SERVICE_IPS,
            FrontendKey::NodePort => SERVICE_NODE_PORTS,
        }
    }

    /// Returns the dispatch chain for internal clients of frontends with external traffic policy Local.
    pub(super) fn internal_chain(self) -> &'static str {
        match self {
            FrontendKey::Address => INSIDE_IPS,
            FrontendKey::NodePort => INSIDE_NODE_PORTS,
        }
    }

    /// Returns the set of frontends with external traffic policy Local.
    pub(super) fn local_policy_set(self) -> &'static str {
        match self {
            FrontendKey::Address => LOCAL_IPS,
            FrontendKey::NodePort => LOCAL_NODE_PORTS,
        }
    }
}

/// Returns the dispatch chains: for all clients, and for internal clients of frontends with external traffic policy Local.
pub(super) fn chains(
    key: FrontendKey,
    steps: impl Iterator<Item = DispatchStep> + Clone,
    settings: &Settings,
) -> [(&'static str, Chain); 2] {
    let steps = steps.filter(|step| step.key() == key);
    let before_maps = |is_internal: bool| {
        let rules = |step: DispatchStep| match step {
            DispatchStep::LocalPolicy(key) => local_policy_rules(key, settings),
            DispatchStep::Affinity { key, is_internal } => {
                vec![affinity::dispatch_rule(key, is_internal, settings)]
            }
            DispatchStep::EndpointMap(_) | DispatchStep::AffinityUpdate(..) => Vec::new(),
        };
        steps.clone().filter(move |step| step.is_internal() == is_internal).flat_map(rules)
    };
    let map_rules = |kinds: &[MapKind]| {
        let maps = |kind: MapKind| steps.clone().filter_map(move |step| step.map_of(kind));
        let by_count: BTreeSet<CountMaps> =
            kinds.iter().flat_map(|kind| maps(*kind)).filter_map(EndpointMap::count_maps).collect();
        let sequential = kinds.iter().flat_map(|kind| maps(*kind)).filter(|map| map.count_maps().is_none());
        let chains =
            by_count.into_iter().map(CountMaps::dispatch_chain).chain(sequential.map(EndpointMap::name));
        chains.map(|chain| jump(Rule::new(), &chain)).collect::<Vec<Rule>>()
    };
    let internal: Vec<Rule> = before_maps(true).chain(map_rules(&[MapKind::Internal])).collect();
    let maps = map_rules(&[MapKind::Direct, MapKind::Masqueraded]);
    let all: Vec<Rule> = before_maps(false).chain(maps).collect();
    // A Service cannot have moved from another map if there is only one.
    let can_move = steps
        .clone()
        .filter(|step| !matches!(step, DispatchStep::Affinity { .. } | DispatchStep::AffinityUpdate(..)));
    let mut again = if can_move.count() > 1 { all.clone() } else { Vec::new() };
    if let Some(first) = again.first_mut() {
        *first = first.clone().with_comment("again, as it may be another one by now");
    }
    [(key.frontends(), Chain::new([all, again].concat())), (key.internal_chain(), Chain::new(internal))]
}

fn jump(rule: Rule, chain: &str) -> Rule {
    rule.then(Verdict::jump(chain))
}

/// Returns the rules that send pods and this node to the chain for internal clients.
fn local_policy_rules(key: FrontendKey, settings: &Settings) -> Vec<Rule> {
    let is_in = |rule: Rule| rule.is_in(&key.fields(settings), key.local_policy_set());
    let local = || is_in(Rule::new().from_local());
    let pods = settings.match_pods(Rule::new(), false).map(is_in);
    let mut rules = Vec::new();
    rules.extend(pods.map(|rule| jump(rule, key.internal_chain()).with_comment("short-circuit pod traffic")));
    rules.push(local().set_mark(settings.mark).with_comment("masquerade local traffic"));
    rules.push(jump(local(), key.internal_chain()).with_comment("short-circuit local traffic"));
    rules
}
