//! Renders the rules of one Service in one family.

use portcullis_cluster::Family;
use portcullis_cluster::desired::{Endpoint, ServicePort};

use super::chain::{ChainName, Kind, Names, SharedChain};
use super::nfacct::NFACCT_LOCALHOST_NODE_PORTS;
use super::rule::{Rule, host};
use super::service_rules::ServiceRules;
use crate::detect_local::LocalMatch;
use crate::node_facts::NodeFacts;
use crate::options::Options;

/// What the rules of all Services of a family have in common.
pub(super) struct Renderer {
    pub(super) family: Family,
    masquerade_all: bool,
    local: Option<LocalMatch>,
    /// Count connections to node ports on loopback.
    count_localhost_node_ports: bool,
    node_ip: Option<std::net::IpAddr>,
}

impl Renderer {
    pub(super) fn new(family: Family, options: &Options, on: &NodeFacts) -> Self {
        Renderer {
            family,
            masquerade_all: options.masquerade_all,
            local: options.detect_local.matching(family),
            count_localhost_node_ports: family == Family::V4
                && on.nfacct
                && options.serves_localhost_node_ports(),
            node_ip: on.node_ip(family),
        }
    }

    /// All rules of a Service: those of its ports in this family.
    pub(super) fn service(&self, ports: &[ServicePort], large_cluster: bool) -> ServiceRules {
        let mut rules = ServiceRules::default();
        for port in ports.iter().filter(|p| p.family == self.family) {
            PortRenderer::new(self, port, large_cluster).render(&mut rules);
        }
        rules
    }

    /// Only the rules of a Service that stand in shared chains.
    pub(super) fn shared(&self, ports: &[ServicePort]) -> ServiceRules {
        let mut rules = ServiceRules::default();
        for port in ports.iter().filter(|p| p.family == self.family) {
            PortRenderer::new(self, port, false).capture(&mut rules);
        }
        rules
    }
}

struct PortRenderer<'a> {
    all: &'a Renderer,
    port: &'a ServicePort,
    name: String,
    names: Names,
    large_cluster: bool,
}

/// What becomes of traffic that no endpoint takes.
#[derive(Clone, Copy)]
enum Refusal {
    /// There is none anywhere: say so.
    Reject,
    /// There are some elsewhere, and the load balancer will find out: be silent.
    Drop,
}

impl<'a> PortRenderer<'a> {
    fn new(all: &'a Renderer, port: &'a ServicePort, large_cluster: bool) -> Self {
        PortRenderer { all, port, name: port.name.to_string(), names: Names::of(&port.name), large_cluster }
    }

    fn render(&self, rules: &mut ServiceRules) {
        self.capture(rules);
        self.external_chain(rules);
        self.firewall_chain(rules);
        self.policy_chains(rules);
        for endpoint in self.port.endpoints.reachable() {
            self.endpoint_chain(endpoint, rules);
        }
    }

    fn has_endpoints(&self) -> bool {
        self.port.endpoints.has_usable()
    }

    fn has_local_endpoints(&self) -> bool {
        self.port.endpoints.for_local().next().is_some()
    }

    fn internal_refusal(&self) -> Option<Refusal> {
        self.refusal(self.port.internal_local)
    }

    fn external_refusal(&self) -> Option<Refusal> {
        self.refusal(self.port.external_local)
    }

    fn refusal(&self, local_only: bool) -> Option<Refusal> {
        if !self.has_endpoints() {
            Some(Refusal::Reject)
        } else if local_only && !self.has_local_endpoints() {
            Some(Refusal::Drop)
        } else {
            None
        }
    }

    fn policy_kind(local_only: bool) -> Kind {
        if local_only { Kind::Local } else { Kind::Cluster }
    }

    fn has_firewall(&self) -> bool {
        self.has_endpoints() && !self.port.load_balancer_vips.is_empty() && self.port.source_ranges.is_some()
    }

    /// The rules that catch the traffic, in shared chains.
    fn capture(&self, rules: &mut ServiceRules) {
        let internal = self.names.chain(Self::policy_kind(self.port.internal_local));
        let external = self.names.chain(Kind::External);
        match (self.port.cluster_ip, self.internal_refusal()) {
            (None, _) => {}
            (Some(ip), None) => self.capture_address(rules, ip, "cluster IP", internal),
            (Some(ip), Some(refusal)) => {
                self.refuse_address(rules, SharedChain::FilterServices, ip, refusal);
            }
        }
        for &ip in &self.port.external_ips {
            if self.has_endpoints() {
                self.capture_address(rules, ip, "external IP", external);
            }
            self.refuse_external(rules, ip);
        }
        let firewall = self.names.chain(Kind::Firewall);
        for &ip in &self.port.load_balancer_vips {
            if self.has_endpoints() {
                let target = if self.has_firewall() { firewall } else { external };
                self.capture_address(rules, ip, "loadbalancer IP", target);
            }
            if self.has_firewall() {
                let comment = format!("{} traffic not accepted by {firewall}", self.name);
                rules.shared_rule(SharedChain::FilterFirewall, |rule| {
                    self.to(rule.comment(comment), ip).jump("DROP");
                });
            }
            self.refuse_external(rules, ip);
        }
        self.capture_node_port(rules, external);
        self.health_check_port(rules);
    }

    fn to<'r>(&self, rule: Rule<'r>, ip: std::net::IpAddr) -> Rule<'r> {
        rule.destination(host(ip)).port(self.port.name.protocol, self.port.port)
    }

    fn capture_address(&self, rules: &mut ServiceRules, ip: std::net::IpAddr, what: &str, target: ChainName) {
        let comment = format!("{} {what}", self.name);
        rules.shared_rule(SharedChain::NatServices, |rule| self.to(rule.comment(comment), ip).jump(target));
    }

    fn refuse_external(&self, rules: &mut ServiceRules, ip: std::net::IpAddr) {
        if let Some(refusal) = self.external_refusal() {
            self.refuse_address(rules, SharedChain::FilterExternalServices, ip, refusal);
        }
    }

    fn refuse_address(
        &self,
        rules: &mut ServiceRules,
        chain: SharedChain,
        ip: std::net::IpAddr,
        refusal: Refusal,
    ) {
        rules.shared_rule(chain, |rule| {
            self.refuse(self.to(rule.comment(self.refusal_comment(refusal)), ip), refusal);
        });
    }

    fn refusal_comment(&self, refusal: Refusal) -> String {
        match refusal {
            Refusal::Reject => format!("{} has no endpoints", self.name),
            Refusal::Drop => format!("{} has no local endpoints", self.name),
        }
    }

    fn refuse(&self, rule: Rule<'_>, refusal: Refusal) {
        match refusal {
            Refusal::Reject => rule.reject(self.all.family),
            Refusal::Drop => rule.jump("DROP"),
        }
    }

    fn capture_node_port(&self, rules: &mut ServiceRules, external: ChainName) {
        let Some(node_port) = self.port.node_port else { return };
        let protocol = self.port.name.protocol;
        if self.has_endpoints() {
            if self.all.count_localhost_node_ports {
                rules.shared_rule(SharedChain::NatNodePorts, |rule| {
                    rule.comment(&self.name)
                        .destination(loopback_block())
                        .port(protocol, node_port)
                        .nfacct(NFACCT_LOCALHOST_NODE_PORTS)
                        .jump(external);
                });
            }
            rules.shared_rule(SharedChain::NatNodePorts, |rule| {
                rule.comment(&self.name).port(protocol, node_port).jump(external);
            });
        }
        if let Some(refusal) = self.external_refusal() {
            rules.shared_rule(SharedChain::FilterExternalServices, |rule| {
                let comment = self.refusal_comment(refusal);
                self.refuse(rule.comment(comment).destination_is_local().port(protocol, node_port), refusal);
            });
        }
    }

    fn health_check_port(&self, rules: &mut ServiceRules) {
        let Some(port) = self.port.health_check_node_port else { return };
        let comment = format!("{} health check node port", self.name);
        rules.shared_rule(SharedChain::FilterNodePorts, |rule| {
            rule.comment(comment).port(portcullis_cluster::Protocol::Tcp, port).jump("ACCEPT");
        });
    }

    /// Traffic from outside: masqueraded, unless only local endpoints take it, where the real source
    /// is to be kept; then what comes from pods and from the node itself is led as inside the cluster.
    fn external_chain(&self, rules: &mut ServiceRules) {
        if !self.has_endpoints() || !self.port.externally_accessible() {
            return;
        }
        let name = &self.name;
        let cluster = self.names.chain(Kind::Cluster);
        rules.begin_chain(self.names.chain(Kind::External));
        if self.port.external_local {
            let pods = format!("pod traffic for {name} external destinations");
            if let Some(local) = &self.all.local {
                rules.rule(|rule| rule.local(local).comment(pods).jump(cluster));
            }
            let masquerade = format!("masquerade LOCAL traffic for {name} external destinations");
            rules.rule(|rule| rule.comment(masquerade).source_is_local().jump("KUBE-MARK-MASQ"));
            let route = format!("route LOCAL traffic for {name} external destinations");
            rules.rule(|rule| rule.comment(route).source_is_local().jump(cluster));
        } else {
            let masquerade = format!("masquerade traffic for {name} external destinations");
            rules.rule(|rule| rule.comment(masquerade).jump("KUBE-MARK-MASQ"));
        }
        if self.external_refusal().is_none() {
            let policy = self.names.chain(Self::policy_kind(self.port.external_local));
            rules.rule(|rule| rule.jump(policy));
        }
    }

    fn firewall_chain(&self, rules: &mut ServiceRules) {
        let Some(ranges) = self.port.source_ranges.as_ref().filter(|_| self.has_firewall()) else { return };
        let name = &self.name;
        let external = self.names.chain(Kind::External);
        let comment = format!("{name} loadbalancer IP");
        rules.begin_chain(self.names.chain(Kind::Firewall));
        for &range in ranges {
            rules.rule(|rule| rule.source(range).comment(&comment).jump(external));
        }
        // A load balancer may put its address on the node, which then uses it as source towards itself.
        let node_allowed = |node| ranges.iter().any(|range| range.contains(&node));
        if self.all.node_ip.is_some_and(node_allowed) {
            for &ip in &self.port.load_balancer_vips {
                rules.rule(|rule| rule.source(host(ip)).comment(&comment).jump(external));
            }
        }
        let rest = format!("other traffic to {name} will be dropped by KUBE-PROXY-FIREWALL");
        rules.rule(|rule| rule.comment(rest).no_target());
    }

    fn policy_chains(&self, rules: &mut ServiceRules) {
        let endpoints = &self.port.endpoints;
        let cluster: Vec<&Endpoint> = endpoints.for_cluster().collect();
        let local: Vec<&Endpoint> = endpoints.for_local().collect();
        self.policy_chain(Kind::Cluster, &cluster, !self.port.internal_local, rules);
        self.policy_chain(Kind::Local, &local, self.port.internal_local, rules);
    }

    fn policy_chain(&self, kind: Kind, endpoints: &[&Endpoint], internal: bool, rules: &mut ServiceRules) {
        if endpoints.is_empty() {
            return;
        }
        rules.begin_chain(self.names.chain(kind));
        if internal {
            self.masquerade_from_outside(rules);
        }
        let chains: Vec<ChainName> = endpoints.iter().map(|e| self.names.endpoint(e)).collect();
        if let Some(seconds) = self.port.affinity {
            for (endpoint, chain) in endpoints.iter().zip(&chains) {
                rules.rule(|rule| {
                    self.endpoint_comment(rule, endpoint).seen(chain, seconds, self.all.family).jump(chain);
                });
            }
        }
        for (i, (endpoint, chain)) in endpoints.iter().zip(&chains).enumerate() {
            rules.rule(|rule| {
                let rule = self.endpoint_comment(rule, endpoint);
                match endpoints.len() - i {
                    1 => rule.jump(chain),
                    left => rule.one_in(left).jump(chain),
                }
            });
        }
    }

    /// Traffic to the ClusterIP that does not come from a pod needs an answer by way of this node.
    fn masquerade_from_outside(&self, rules: &mut ServiceRules) {
        let Some(cluster_ip) = self.port.cluster_ip else { return };
        let comment = format!("{} cluster IP", self.name);
        let local = self.all.local.as_ref().filter(|_| !self.all.masquerade_all);
        if local.is_none() && !self.all.masquerade_all {
            return;
        }
        rules.rule(|rule| {
            let rule = self.to(rule.comment(comment), cluster_ip);
            let rule = match local {
                Some(local) => rule.not_local(local),
                None => rule,
            };
            rule.jump("KUBE-MARK-MASQ");
        });
    }

    fn endpoint_comment<'r>(&self, rule: Rule<'r>, endpoint: &Endpoint) -> Rule<'r> {
        if self.large_cluster {
            return rule;
        }
        rule.comment(format_args!("{} -> {}", self.name, endpoint.socket()))
    }

    fn name_comment<'r>(&self, rule: Rule<'r>) -> Rule<'r> {
        if self.large_cluster { rule } else { rule.comment(&self.name) }
    }

    fn endpoint_chain(&self, endpoint: &Endpoint, rules: &mut ServiceRules) {
        let chain = self.names.endpoint(endpoint);
        rules.begin_chain(chain);
        // Hairpin: a pod that is led back to itself must not see its own address as source.
        rules.rule(|rule| self.name_comment(rule).source(host(endpoint.ip)).jump("KUBE-MARK-MASQ"));
        rules.rule(|rule| {
            let mut rule = self.name_comment(rule);
            if self.port.affinity.is_some() {
                rule = rule.note(chain, self.all.family);
            }
            rule.protocol(self.port.name.protocol).dnat(endpoint.socket());
        });
    }
}

/// The IPv4 loopback block, 127.0.0.0/8.
pub(crate) fn loopback_block() -> ipnet::IpNet {
    ipnet::IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8))
}
