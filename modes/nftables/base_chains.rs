//! The sets, maps and chains that exist with or without Services.

use portcullis_cluster::desired::ClusterIpMasquerade;
use portcullis_netlink::nf_tables::{
    BaseChain, CT_STATUS_DNAT, Chain, ChainKind, Ct, CtState, DataType, DesiredTable, Element, Expression,
    Field, Hook, Key, Meta, Reject, Rule, Set, SetSpec, Verdict,
};

use super::affinity;
use super::endpoint_map::FrontendKey;
use super::loopback_guard;
use super::names::{
    CLUSTER_IPS, FIREWALL_IPS, FIREWALL_SOURCES, HAIRPIN, LOCAL_IPS, LOCAL_NODE_PORTS,
    NO_ENDPOINT_NODE_PORTS, NO_ENDPOINTS, NODE_PORT_IPS, REJECT, SERVICE_CIDRS, SERVICE_IPS,
    SERVICE_NODE_PORTS, SERVICES,
};
use super::service_counters;
use super::settings::{Settings, match_block};
use crate::node_port_addresses::NodePortScope;

const FIREWALL_CHECK: &str = "firewall-check";
/// The chain that rejects packets to Services without endpoints, in hooks after destination NAT.
pub(super) const SERVICE_ENDPOINTS_CHECK: &str = "service-endpoints-check";
const NODE_PORT_ENDPOINTS_CHECK: &str = "nodeport-endpoints-check";
const CLUSTER_IPS_CHECK: &str = "cluster-ips-check";
const MASQUERADING: &str = "masquerading";

/// Adds the sets and maps.
pub(super) fn put_sets(table: &mut DesiredTable, settings: &Settings) {
    let address = settings.address();
    let (protocol, port) = (DataType::InetProto, DataType::InetService);
    let [service, node_port] =
        [FrontendKey::Address, FrontendKey::NodePort].map(|front| front.types(settings));
    let source = [&service[..], &[address]].concat();
    let hairpin = [address, address, protocol, port];
    let mut sets: Vec<(&str, SetSpec, &str)> = vec![
        (SERVICE_IPS, SetSpec::new(&service), "cluster, external and load balancer IPs"),
        (SERVICE_NODE_PORTS, SetSpec::new(&node_port), "node ports"),
        (LOCAL_IPS, SetSpec::new(&service), "external IPs of policy Local"),
        (LOCAL_NODE_PORTS, SetSpec::new(&node_port), "node ports of policy Local"),
        (NO_ENDPOINTS, SetSpec::verdict_map(&service), "addresses that no endpoint serves"),
        (NO_ENDPOINT_NODE_PORTS, SetSpec::verdict_map(&node_port), "node ports that no endpoint serves"),
        (CLUSTER_IPS, SetSpec::new(&[address]), "all cluster IPs"),
        (HAIRPIN, SetSpec::new(&hairpin), "endpoints that are led back to themselves"),
        (FIREWALL_IPS, SetSpec::new(&service), "load balancer IPs for some sources only"),
        (FIREWALL_SOURCES, SetSpec::new(&source).with_intervals(), "the sources"),
    ];
    sets.extend(affinity::sets(settings));
    for (name, spec, about) in sets {
        let counts = settings.counts_services && [SERVICE_IPS, SERVICE_NODE_PORTS].contains(&name);
        let spec = if counts { spec.with_counters() } else { spec };
        table.put_set(&name.into(), Set::new(spec.with_comment(about)));
    }
    if settings.counts_services {
        service_counters::put_sets(table, settings);
    }
    if let NodePortScope::Addresses(addresses) = &settings.node_ports {
        let elements = addresses.iter().map(|ip| (Key::from(*ip), Element::new()));
        let spec = SetSpec::new(&[address]).with_comment("this node's addresses that serve node ports");
        table.put_set(&NODE_PORT_IPS.into(), Set::with_elements(spec, elements));
    }
    if !settings.service_cidrs.is_empty() {
        let cidrs = ipnet::IpNet::aggregate(&settings.service_cidrs);
        let elements =
            cidrs.iter().map(|cidr| (Key::from(cidr.network()), Element::range_to(cidr.broadcast().into())));
        let spec = SetSpec::new(&[address]).with_intervals().with_comment("the blocks of cluster IPs");
        table.put_set(&SERVICE_CIDRS.into(), Set::with_elements(spec, elements));
    }
}

/// Adds the chains.
pub(super) fn put_chains(table: &mut DesiredTable, settings: &Settings) {
    let base = |kind, hook, priority, rules: Vec<Rule>| Chain {
        base: Some(BaseChain { kind, hook, priority }),
        ..Chain::new(rules)
    };
    let new = |chains: &[&str]| -> Vec<Rule> {
        let jump = |chain: &&str| Rule::new().ct_state(CtState::NEW).then(Verdict::jump(*chain));
        chains.iter().map(jump).collect()
    };
    let jump = |chain: &str| vec![Rule::new().then(Verdict::jump(chain))];
    let (filter, nat) = (ChainKind::Filter, ChainKind::Nat);
    let forwarded = [SERVICE_ENDPOINTS_CHECK, CLUSTER_IPS_CHECK];
    let mut input = new(&[NODE_PORT_ENDPOINTS_CHECK, SERVICE_ENDPOINTS_CHECK]);
    if settings.guards_loopback {
        input.insert(0, loopback_guard::rule(settings.family));
    }
    // In the output hook only: on a link without a guard, other hosts can send packets to loopback addresses.
    let mut output = jump(SERVICES);
    output.extend(settings.localhost.then(|| on_localhost(settings, SERVICE_NODE_PORTS)));
    let [mut prerouting, mut output_pre_dnat] = [new(&[FIREWALL_CHECK]), new(&[FIREWALL_CHECK])];
    if settings.counts_services {
        prerouting.extend(service_counters::rules_from_clients(settings, false));
        output_pre_dnat.extend(service_counters::rules_from_clients(settings, true));
        service_counters::put_chains(table, settings);
    }
    let chains = [
        ("filter-prerouting-pre-dnat", base(filter, Hook::Prerouting, -110, prerouting)),
        ("filter-output-pre-dnat", base(filter, Hook::Output, -110, output_pre_dnat)),
        ("filter-input", base(filter, Hook::Input, 0, input)),
        ("filter-forward", base(filter, Hook::Forward, 0, new(&forwarded))),
        ("filter-output", base(filter, Hook::Output, 0, new(&forwarded))),
        ("nat-prerouting", base(nat, Hook::Prerouting, -100, jump(SERVICES))),
        ("nat-output", base(nat, Hook::Output, -100, output)),
        ("nat-postrouting", base(nat, Hook::Postrouting, 100, jump(MASQUERADING))),
        (FIREWALL_CHECK, Chain::new(vec![firewall(settings)])),
        (SERVICE_ENDPOINTS_CHECK, service_endpoints_check(settings, false)),
        (NODE_PORT_ENDPOINTS_CHECK, Chain::new(node_ports(settings, NO_ENDPOINT_NODE_PORTS, false))),
        (CLUSTER_IPS_CHECK, Chain::new(cluster_ips(settings))),
        (SERVICES, Chain::new(services(settings))),
        (MASQUERADING, Chain::new(masquerading(settings))),
        (REJECT, Chain::new(vec![Rule::new().reject(Reject::IcmpPortUnreachable(settings.kernel_family()))])),
    ];
    for (name, chain) in chains.into_iter().chain(affinity::chains(settings)) {
        table.put_chain(&name.into(), chain);
    }
}

/// Returns the chain that rejects packets to Services without endpoints, and updates session-affinity entries if a Service has
/// session affinity.
pub(super) fn service_endpoints_check(settings: &Settings, has_affinity: bool) -> Chain {
    let mut rules = vec![Rule::new().verdict_map(&FrontendKey::Address.fields(settings), NO_ENDPOINTS)];
    rules.extend(has_affinity.then(affinity::update_rule));
    Chain::new(rules)
}

/// Returns the rule that looks up node ports for packets to loopback addresses.
fn on_localhost(settings: &Settings, map: &'static str) -> Rule {
    let to_loopback = match_block(Rule::new(), settings.destination(), settings.loopback(), false);
    look_up_node_port(to_loopback, settings, map).with_comment("on localhost")
}

/// Adds the lookup of a node port: a set and a jump to the dispatch chain, or a verdict map.
fn look_up_node_port(rule: Rule, settings: &Settings, map: &'static str) -> Rule {
    let key = FrontendKey::NodePort.fields(settings);
    match map {
        SERVICE_NODE_PORTS => rule.is_in(&key, map).then(Verdict::goto(map)),
        _ => rule.verdict_map(&key, map),
    }
}

fn firewall(settings: &Settings) -> Rule {
    let service = FrontendKey::Address.fields(settings);
    Rule::new()
        .is_in(&service, FIREWALL_IPS)
        .is_not_in(&[&service[..], &[settings.source()]].concat(), FIREWALL_SOURCES)
        .then(Verdict::Drop)
}

fn cluster_ips(settings: &Settings) -> Vec<Rule> {
    let destination = [settings.destination()];
    let mut rules = vec![
        Rule::new()
            .is_in(&destination, CLUSTER_IPS)
            .reject(Reject::IcmpPortUnreachable(settings.kernel_family()))
            .with_comment("ports that a cluster IP does not have"),
    ];
    if !settings.service_cidrs.is_empty() {
        let unallocated = Rule::new().is_in(&destination, SERVICE_CIDRS).then(Verdict::Drop);
        rules.push(unallocated.with_comment("cluster IPs that no Service has"));
    }
    rules
}

fn services(settings: &Settings) -> Vec<Rule> {
    let mut rules = Vec::new();
    let to_cluster_ip = Rule::new().is_in(&[settings.destination()], CLUSTER_IPS);
    let masqueraded = match settings.routing.cluster_ip_masquerade() {
        ClusterIpMasquerade::All => Some(to_cluster_ip),
        ClusterIpMasquerade::NotFromPod => settings.match_pods(to_cluster_ip, true),
        ClusterIpMasquerade::FromNode | ClusterIpMasquerade::Never => None,
    };
    rules.extend(
        masqueraded.map(|rule| rule.set_mark(settings.mark).with_comment("masquerade what is not from pods")),
    );
    rules.push(
        Rule::new()
            .is_in(&FrontendKey::Address.fields(settings), SERVICE_IPS)
            .then(Verdict::goto(SERVICE_IPS)),
    );
    rules.extend(node_ports(settings, SERVICE_NODE_PORTS, true));
    rules
}

/// Returns the rules that look up node ports for packets to the addresses that serve them. `is_nat` is true before
/// destination NAT.
fn node_ports(settings: &Settings, map: &'static str, is_nat: bool) -> Vec<Rule> {
    let look_up = |rule: Rule| look_up_node_port(rule, settings, map);
    let destination = settings.destination();
    let mut rules = Vec::new();
    match &settings.node_ports {
        NodePortScope::Addresses(_) => {
            rules.push(look_up(Rule::new().is_in(&[destination], NODE_PORT_IPS)));
        }
        NodePortScope::All => {
            // Packets of the input hook have a local destination.
            let local = if is_nat { Rule::new().to_local() } else { Rule::new() };
            rules.push(look_up(match_block(local, destination, settings.loopback(), true)));
        }
    }
    if settings.localhost && !is_nat {
        rules.push(on_localhost(settings, map));
    }
    rules
}

fn masquerading(settings: &Settings) -> Vec<Rule> {
    let masquerade = || Expression::Masquerade { random_fully: true };
    let marked = Rule::new().any_bit(Field::Meta(Meta::Mark), settings.mark);
    let hairpin = [settings.source(), settings.destination(), Field::PROTOCOL, Field::DestinationPort];
    vec![
        marked.flip_mark(settings.mark).push(masquerade()),
        Rule::new()
            .any_bit(Field::Ct(Ct::Status), CT_STATUS_DNAT)
            .is_in(&hairpin, HAIRPIN)
            .push(masquerade()),
    ]
}
