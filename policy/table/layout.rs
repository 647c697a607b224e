//! The table as a value that follows what is compiled.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{
    BaseChain, Chain, ChainKind, Comparison, CtState, DataType, DesiredTable, Element, Field, Hook, Key,
    Rule, Set, SetSpec, TCP_SYN, TCP_SYN_ECN, TableFamily, Verdict,
};

use super::interfaces;
use super::label::{self, DropLabels};
use super::names::{
    CUT, EGRESS, INGRESS, INPUT, INPUT_PRIORITY, OTHER_PROTOCOLS, PICKED_UP, POSTROUTING,
    POSTROUTING_PRIORITY, PREROUTING, PREROUTING_PRIORITY, ROUTER_ADVERTISEMENTS, TABLE, UNKNOWN_PODS,
    of_family,
};
use super::options::{PolicyOptions, UnknownPods};
use super::profile_chain::{ITSELF, judging, judging_towards_node, towards_node};
use super::rules::{RuleRenderer, denied};
use super::shared_sets::SharedSets;
use super::tiers::{TierKey, Tiers};
use crate::compile::{
    AddressChange, CompiledPolicies, Direction, PodProfiles, PolicyChanges, PolicyId, Profile, RulesChange,
    RulesId, SetUpdate,
};
use crate::interfaces::PodInterface;

const KNOWN: &str = "known-pods";
const RANGES: &str = "pod-ranges";
const TOWARDS_NODE: &str = "to-this-node";
const SERVERS: &str = "isolated-servers";
const CLIENTS: &str = "isolated-clients";

/// How long connections are taken up at most, in milliseconds, where nothing ends it before: a daemon that does not run.
const PICK_UP_AT_MOST: u64 = 120_000;

/// The line that takes up TCP connections in their middle while the set of such protocols is not empty.
fn picked_up() -> Rule {
    not_first_segment(Rule::new()).is_in(&[Field::PROTOCOL], PICKED_UP).then(Verdict::Accept)
}

/// Matches TCP segments that do not open a connection.
fn not_first_segment(line: Rule) -> Rule {
    line.protocol(libc::IPPROTO_TCP as u8).compare(Field::TcpFlags, Comparison::NotEqual, TCP_SYN).compare(
        Field::TcpFlags,
        Comparison::NotEqual,
        TCP_SYN_ECN,
    )
}

/// The table that enforces policies.
#[derive(Debug)]
pub struct PolicyTable {
    table: DesiredTable,
    /// The table of the family `bridge`, by which ports of bridges are told apart.
    bridge: DesiredTable,
    options: PolicyOptions,
    shared: SharedSets,
    tiers: Tiers,
    labels: Arc<BTreeMap<Arc<str>, DropLabels>>,
}

impl PolicyTable {
    /// The table as it is before there is any policy.
    pub fn new(options: PolicyOptions) -> Self {
        let mut table = DesiredTable::new(TableFamily::Inet, TABLE);
        table.set_comment("NetworkPolicy, by portcullis");
        let bridge = interfaces::bridge_table(&options);
        let mut this = PolicyTable {
            table,
            bridge,
            options,
            shared: SharedSets::default(),
            tiers: Tiers::default(),
            labels: Arc::default(),
        };
        this.put_maps();
        let spec = SetSpec { timeout: Some(0), ..SetSpec::new(&[DataType::InetProto]) };
        let about = "whose connections may be older than connection tracking";
        this.table.put_set(&PICKED_UP.into(), Set::new(spec.with_comment(about)));
        interfaces::put_sets(&mut this.table);
        this.put_chains();
        this
    }

    /// The table for what is compiled.
    pub fn from_compiled(options: PolicyOptions, compiled: &CompiledPolicies) -> Self {
        let mut this = PolicyTable::new(options);
        this.apply(&PolicyChanges::all(compiled), compiled);
        this
    }

    /// What the kernel should hold.
    pub fn table(&self) -> &DesiredTable {
        &self.table
    }

    /// What the kernel should hold in the family `bridge`.
    pub fn bridge(&self) -> &DesiredTable {
        &self.bridge
    }

    /// Both tables, to commit them: that of the family `inet` first.
    pub fn tables_mut(&mut self) -> [&mut DesiredTable; 2] {
        [&mut self.table, &mut self.bridge]
    }

    /// Has the middle of a TCP connection that is not tracked pass from now on, or be judged as its begin.
    pub fn set_pick_up(&mut self, on: bool) {
        let (set, tcp) = (PICKED_UP.into(), Key::new().protocol(libc::IPPROTO_TCP as u8));
        match on {
            true => self.table.put_element(&set, tcp, Element::new().with_timeout(PICK_UP_AT_MOST)),
            false => self.table.remove_element(&set, &tcp),
        }
    }

    /// Matches pods by these interfaces from now on. `compiled` is what the table follows.
    pub fn set_interfaces(&mut self, interfaces: &[PodInterface], compiled: &CompiledPolicies) {
        interfaces::set_interfaces(interfaces, compiled, &mut self.table, &mut self.bridge);
    }

    /// What each counter counts, by its name.
    pub fn labels(&self) -> &Arc<BTreeMap<Arc<str>, DropLabels>> {
        &self.labels
    }

    /// How policies are enforced.
    pub fn options(&self) -> &PolicyOptions {
        &self.options
    }

    fn put_maps(&mut self) {
        for family in Family::ALL {
            let address = DataType::address(family);
            let mut put = |name: &str, spec: SetSpec| {
                self.table.put_set(&of_family(name, family).into(), Set::new(spec));
            };
            put(
                EGRESS,
                SetSpec::verdict_map(&[address]).with_comment("pods whose connections to others are judged"),
            );
            put(
                INGRESS,
                SetSpec::verdict_map(&[address]).with_comment("pods to which connections are judged"),
            );
            put(
                TOWARDS_NODE,
                SetSpec::verdict_map(&[address]).with_comment("pods judged towards this node itself"),
            );
            put(ITSELF, SetSpec::new(&[address, address]).with_comment("a pod that talks to itself"));
            if self.options.terminates_connections {
                put(SERVERS, SetSpec::new(&[address]).with_comment("pods to which connections are judged"));
                put(CLIENTS, SetSpec::new(&[address]).with_comment("pods whose connections are judged"));
            }
            if let UnknownPods::Deny { ranges } = &self.options.unknown_pods {
                put(KNOWN, SetSpec::new(&[address]).with_comment("all pods of this node that are known"));
                let ranges = ranges.iter().filter(|range| Family::from_address(range.addr()) == family);
                let elements = ranges.map(|range| {
                    (Key::from(range.network()), Element::range_to(Key::from(range.broadcast())))
                });
                let set = Set::with_elements(SetSpec::new(&[address]).with_intervals(), elements);
                self.table.put_set(&of_family(RANGES, family).into(), set);
            }
        }
    }

    fn put_chains(&mut self) {
        let label = |policy: &str| DropLabels { direction: "", policy: policy.to_owned() };
        let about = "router advertisements and redirects of pods";
        self.put_counter(&ROUTER_ADVERTISEMENTS.into(), about, label(ROUTER_ADVERTISEMENTS));
        // The bridge table counts those.
        Arc::make_mut(&mut self.labels).insert(OTHER_PROTOCOLS.into(), label(OTHER_PROTOCOLS));
        let established =
            || Rule::new().ct_state(CtState::ESTABLISHED | CtState::RELATED).then(Verdict::Accept);
        // What IPv6 cannot do without (RFC 4890): multicast listeners, routers and neighbours. In IPv4 nobody speaks it.
        let icmp6 = || Rule::new().family(Family::V6).protocol(libc::IPPROTO_ICMPV6 as u8);
        let discovery = || {
            let ranges = [(130u8, 137u8), (143, 143)];
            ranges.map(|(first, last)| icmp6().between(Field::IcmpType, first, last).then(Verdict::Accept))
        };
        let base = |hook, priority, rules: Vec<Rule>| Chain {
            base: Some(BaseChain { kind: ChainKind::Filter, hook, priority }),
            ..Chain::new(rules)
        };
        let source = |family| [Field::Source(family)];
        let lookup = |map: &str, field: fn(Family) -> [Field; 1]| {
            Family::ALL
                .map(|family| Rule::new().family(family).verdict_map(&field(family), of_family(map, family)))
        };
        let own = Rule::new()
            .sent_locally()
            .then(Verdict::Accept)
            .with_comment("this node's own, such as probes of its pods");
        let mut rules = vec![established()];
        rules.extend(discovery());
        rules.push(own);
        rules.push(picked_up());
        rules.extend(self.taken_up());
        rules.push(Rule::new().then(Verdict::goto(EGRESS)));
        self.table.put_chain(&POSTROUTING.into(), base(Hook::Postrouting, POSTROUTING_PRIORITY, rules));
        let mut rules: Vec<Rule> = interfaces::router_advertisements_of_pods(&self.options).collect();
        rules.push(established());
        rules.extend(discovery());
        rules.extend(interfaces::from_interfaces());
        self.table.put_chain(&PREROUTING.into(), base(Hook::Prerouting, PREROUTING_PRIORITY, rules));
        let mut rules = vec![established()];
        rules.extend(discovery());
        rules.push(picked_up());
        rules.extend(interfaces::to_groups());
        rules.extend(lookup(TOWARDS_NODE, source));
        self.table.put_chain(&INPUT.into(), base(Hook::Input, INPUT_PRIORITY, rules));

        let mut egress = self.unknown(Direction::Egress);
        egress.extend(interfaces::from_ports());
        egress.extend(lookup(EGRESS, source));
        egress.push(Rule::new().then(Verdict::goto(INGRESS)));
        self.table.put_chain(&EGRESS.into(), Chain::new(egress));
        let mut ingress = self.unknown(Direction::Ingress);
        ingress.extend(interfaces::to_interfaces());
        ingress.extend(lookup(INGRESS, |family| [Field::Destination(family)]));
        ingress.push(Rule::new().then(Verdict::Accept));
        self.table.put_chain(&INGRESS.into(), Chain::new(ingress));
        if self.options.terminates_connections {
            let label = DropLabels { direction: "", policy: CUT.to_owned() };
            self.put_counter(&CUT.into(), "answers in connections that were cut", label);
        }
        if self.options.unknown_pods != UnknownPods::Allow {
            let label = DropLabels { direction: "", policy: UNKNOWN_PODS.to_owned() };
            self.put_counter(&UNKNOWN_PODS.into(), "connections of pods that are not known", label);
        }
    }

    /// The lines that keep connections cut. A TCP segment in the midst of a connection that nobody tracks looks like a
    /// connection of its sender's, whoever asked for it: what a server sends would bring back the connection that its
    /// client may not have any more. Only the end that is judged can take it up.
    fn taken_up(&self) -> Vec<Rule> {
        if !self.options.terminates_connections {
            return Vec::new();
        }
        let ends = |family| [(Field::Source(family), SERVERS), (Field::Destination(family), CLIENTS)];
        let of_family = |family: Family| {
            ends(family).map(|(field, set)| {
                not_first_segment(Rule::new().family(family))
                    .is_in(&[field], of_family(set, family))
                    .counter(CUT)
                    .then(Verdict::Drop)
            })
        };
        Family::ALL.into_iter().flat_map(of_family).collect()
    }

    /// The lines that drop what comes from, or goes to, an address in this node's ranges that no known pod has. The
    /// node's own addresses in these ranges, such as its bridge's, are none of a pod: packets of the input hook come to
    /// the ingress chain too, once a ClusterNetworkPolicy has accepted them.
    fn unknown(&self, direction: Direction) -> Vec<Rule> {
        if self.options.unknown_pods == UnknownPods::Allow {
            return Vec::new();
        }
        let of_family = |family: Family| {
            let field = match direction {
                Direction::Egress => Field::Source(family),
                Direction::Ingress => Field::Destination(family),
            };
            let start = Rule::new()
                .family(family)
                .is_in(&[field], of_family(RANGES, family))
                .is_not_in(&[field], of_family(KNOWN, family));
            let start = match direction {
                Direction::Egress => start,
                Direction::Ingress => start.not_to_local(),
            };
            denied(&start, direction, UNKNOWN_PODS, "of a pod that is not known", &self.options)
        };
        Family::ALL.into_iter().flat_map(of_family).collect()
    }

    fn put_counter(&mut self, name: &Arc<str>, comment: &str, label: DropLabels) {
        self.table.put_counter(name, Some(comment));
        Arc::make_mut(&mut self.labels).insert(Arc::clone(name), label);
    }

    fn remove_counter(&mut self, name: &str) {
        self.table.remove_counter(name);
        if self.labels.contains_key(name) {
            Arc::make_mut(&mut self.labels).remove(name);
        }
    }

    /// Follows what changed. `compiled` is how it is after the changes.
    pub fn apply(&mut self, changes: &PolicyChanges, compiled: &CompiledPolicies) {
        for change in &changes.sets {
            let (name, about) = (change.id.name(), change.id.describe());
            let address = |address: &IpAddr| (*address, Key::from(*address));
            self.members(&name, &about, &[], &change.update, address);
        }
        for change in &changes.named_ports {
            let (name, about) = (change.id.name(), change.id.describe());
            let member = |(address, port): &(IpAddr, u16)| (*address, Key::from(*address).port(*port));
            self.members(&name, &about, &[DataType::InetService], &change.update, member);
        }
        for change in &changes.rules {
            self.policy_rules(change, compiled);
        }
        for profile in &changes.profiles_added {
            self.profile_came(profile, compiled);
        }
        for change in &changes.addresses {
            self.address(change);
        }
        for profile in &changes.profiles_removed {
            self.profile_went(profile);
        }
    }

    /// A set of each family that follows members; `more` are the parts of its key behind the address.
    fn members<T>(
        &mut self,
        name: &str,
        about: &str,
        more: &[DataType],
        change: &SetUpdate<T>,
        member: impl Fn(&T) -> (IpAddr, Key),
    ) {
        for family in Family::ALL {
            let name: Arc<str> = of_family(name, family).into();
            let keys = |members: &[T]| -> Vec<Key> {
                let all = members.iter().map(&member);
                all.filter(|(address, _)| Family::from_address(*address) == family)
                    .map(|(_, key)| key)
                    .collect()
            };
            match change {
                SetUpdate::Created(members) => {
                    let mut key = vec![DataType::address(family)];
                    key.extend_from_slice(more);
                    let elements = keys(members).into_iter().map(|key| (key, Element::new()));
                    self.table
                        .put_set(&name, Set::with_elements(SetSpec::new(&key).with_comment(about), elements));
                }
                SetUpdate::Deleted => self.table.remove_set(&name),
                SetUpdate::Updated { added, removed } => {
                    keys(removed).iter().for_each(|key| self.table.remove_element(&name, key));
                    keys(added)
                        .into_iter()
                        .for_each(|key| self.table.put_element(&name, key, Element::new()));
                }
            }
        }
    }

    fn policy_rules(&mut self, change: &RulesChange, compiled: &CompiledPolicies) {
        let id = &change.id;
        if let PolicyId::Cluster(_) = &id.policy {
            let label = DropLabels { direction: id.direction.as_str(), policy: id.policy.to_string() };
            match &change.after {
                Some(_) => self.put_counter(&id.name().into(), &id.describe(), label),
                None => self.remove_counter(&id.name()),
            }
            let tiers: Vec<TierKey> = self.tiers.with(id).cloned().collect();
            tiers.iter().for_each(|tier| self.put_tier(tier, compiled));
            return;
        }
        let name: Arc<str> = id.name().into();
        let mut renderer = RuleRenderer::new(&self.options);
        match &change.after {
            Some(rules) => {
                renderer.add(id, rules);
                let chain = Chain::new(std::mem::take(&mut renderer.lines)).with_comment(&id.describe());
                self.shared.assign(&name, renderer.used, &mut self.table);
                self.table.put_chain(&name, chain);
            }
            None => {
                self.shared.assign(&name, renderer.used, &mut self.table);
                self.table.remove_chain(&name);
            }
        }
    }

    fn put_tier(&mut self, tier: &TierKey, compiled: &CompiledPolicies) {
        let mut renderer = RuleRenderer::new(&self.options);
        let rules: Vec<RulesId> = tier.rules().collect();
        rules.iter().for_each(|id| renderer.add(id, compiled.rules_of(id)));
        let name: Arc<str> = tier.name().into();
        let chain = Chain::new(renderer.lines).with_comment(&tier.describe());
        self.shared.assign(&name, renderer.used, &mut self.table);
        self.table.put_chain(&name, chain);
    }

    fn profile_came(&mut self, profile: &Arc<Profile>, compiled: &CompiledPolicies) {
        for tier in self.tiers.enter(profile) {
            self.put_tier(&tier, compiled);
        }
        let name: Arc<str> = profile.name().into();
        if !profile.network.is_empty() {
            let direction = profile.direction.as_str();
            let label = DropLabels { direction, policy: label::names(&profile.network) };
            self.put_counter(&name, &profile.describe(), label);
        }
        self.table.put_chain(&name, judging(profile, &self.options));
        if let Some(name) = towards_node(profile) {
            self.table.put_chain(&name.into(), judging_towards_node(profile));
        }
    }

    fn profile_went(&mut self, profile: &Arc<Profile>) {
        let name = profile.name();
        self.table.remove_chain(&name);
        self.remove_counter(&name);
        if let Some(name) = towards_node(profile) {
            self.table.remove_chain(&name);
        }
        for tier in self.tiers.leave(profile) {
            let name: Arc<str> = tier.name().into();
            self.shared.assign(&name, Default::default(), &mut self.table);
            self.table.remove_chain(&name);
        }
    }

    fn address(&mut self, change: &AddressChange) {
        let family = Family::from_address(change.address);
        let key = Key::from(change.address);
        let judged = change.after.clone().unwrap_or_default();
        let PodProfiles { ingress, egress } = &judged;
        let goto = |profile: &Option<Arc<Profile>>| profile.as_ref().map(|profile| profile.name());
        let towards_node = egress.as_ref().and_then(|profile| towards_node(profile));
        for (map, chain) in [(INGRESS, goto(ingress)), (EGRESS, goto(egress)), (TOWARDS_NODE, towards_node)] {
            let verdict = chain.map(|chain| Element::verdict(Verdict::goto(chain)));
            self.element(map, family, &key, verdict);
        }
        let isolated = [ingress, egress].into_iter().flatten().any(|profile| !profile.network.is_empty());
        let itself = Key::from(change.address).address(change.address);
        self.element(ITSELF, family, &itself, isolated.then(Element::new));
        if self.options.terminates_connections {
            self.element(SERVERS, family, &key, ingress.as_ref().map(|_| Element::new()));
            self.element(CLIENTS, family, &key, egress.as_ref().map(|_| Element::new()));
        }
        if self.options.unknown_pods != UnknownPods::Allow {
            self.element(KNOWN, family, &key, change.after.is_some().then(Element::new));
        }
    }

    fn element(&mut self, set: &str, family: Family, key: &Key, element: Option<Element>) {
        let set: Arc<str> = of_family(set, family).into();
        match element {
            Some(element) => self.table.put_element(&set, key.clone(), element),
            None => self.table.remove_element(&set, key),
        }
    }
}
