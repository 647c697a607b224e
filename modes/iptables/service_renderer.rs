//! The renderer of one Service's rules in one family.

use portcullis_cluster::Family;
use portcullis_cluster::desired::{Endpoint, ServicePort};

use super::chain::{ChainName, ServiceChainKind, ServiceChainNames, SharedChain};
use super::nfacct::NFACCT_LOCALHOST_NODE_PORTS;
use super::rule::{Rule, host};
use super::service_rules::ServiceRules;
use crate::detect_local::LocalMatch;
use crate::node_facts::NodeFacts;
use crate::options::Options;

/// The inputs that the rules of all Services of a family share.
pub(super) struct Renderer {
    pub(super) family: Family,
    masquerade_all: bool,
    local: Option<LocalMatch>,
    /// Count connections to node ports on loopback addresses.
    count_localhost_node_ports: bool,
    node_ip: Option<std::net::IpAddr>,
}

impl Renderer {
    pub(super) fn new(family: Family, options: &Options, facts: &NodeFacts) -> Self {
        Renderer {
            family,
            masquerade_all: options.masquerade_all,
            local: options.detect_local.matching(family),
            count_localhost_node_ports: family == Family::V4
                && facts.iptables.nfacct
                && options.serves_localhost_node_ports(),
            node_ip: facts.node_ip(family),
        }
    }

    /// Renders all rules of a Service: those of its ports in this family.
    pub(super) fn service(&self, ports: &[ServicePort], large_cluster: bool) -> ServiceRules {
        let mut rules = ServiceRules::default();
        for port in ports.iter().filter(|p| p.family == self.family) {
            PortRenderer::new(self, port, large_cluster).render(&mut rules);
        }
        rules
    }

    /// Renders only the rules of a Service in shared chains.
    pub(super) fn shared(&self, ports: &[ServicePort]) -> ServiceRules {
        let mut rules = ServiceRules::default();
        for port in ports.iter().filter(|p| p.family == self.family) {
            PortRenderer::new(self, port, false).shared_rules(&mut rules);
        }
        rules
    }
}

struct PortRenderer<'a> {
    all: &'a Renderer,
    port: &'a ServicePort,
    name: String,
    names: ServiceChainNames,
    large_cluster: bool,
}

/// The handling of traffic without an endpoint.
#[derive(Clone, Copy)]
enum Rejection {
    /// The Service has no endpoint: reject.
    Reject,
    /// Only other nodes have endpoints, as the load balancer will find out: drop.
    Drop,
}

impl<'a> PortRenderer<'a> {
    fn new(all: &'a Renderer, port: &'a ServicePort, large_cluster: bool) -> Self {
        PortRenderer {
            all,
            port,
            name: port.name.to_string(),
            names: ServiceChainNames::new(&port.name),
            large_cluster,
        }
    }

    fn render(&self, rules: &mut ServiceRules) {
        self.shared_rules(rules);
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

    fn internal_rejection(&self) -> Option<Rejection> {
        self.rejection(self.port.internal_local)
    }

    fn external_rejection(&self) -> Option<Rejection> {
        self.rejection(self.port.external_local)
    }

    fn rejection(&self, local_only: bool) -> Option<Rejection> {
        if !self.has_endpoints() {
            Some(Rejection::Reject)
        } else if local_only && !self.has_local_endpoints() {
            Some(Rejection::Drop)
        } else {
            None
        }
    }

    fn policy_kind(local_only: bool) -> ServiceChainKind {
        if local_only { ServiceChainKind::Local } else { ServiceChainKind::Cluster }
    }

    fn has_firewall(&self) -> bool {
        self.has_endpoints() && !self.port.load_balancer_vips.is_empty() && self.port.source_ranges.is_some()
    }

    /// Renders the rules in shared chains, which match the Service's addresses and ports.
    fn shared_rules(&self, rules: &mut ServiceRules) {
        let internal = self.names.chain(Self::policy_kind(self.port.internal_local));
        let external = self.names.chain(ServiceChainKind::External);
        match (self.port.cluster_ip, self.internal_rejection()) {
            (None, _) => {}
            (Some(ip), None) => self.address_rule(rules, ip, "cluster IP", internal),
            (Some(ip), Some(rejection)) => {
                self.reject_address(rules, SharedChain::FilterServices, ip, rejection);
            }
        }
        for &ip in &self.port.external_ips {
            if self.has_endpoints() {
                self.address_rule(rules, ip, "external IP", external);
            }
            self.reject_external(rules, ip);
        }
        let firewall = self.names.chain(ServiceChainKind::Firewall);
        for &ip in &self.port.load_balancer_vips {
            if self.has_endpoints() {
                let target = if self.has_firewall() { firewall } else { external };
                self.address_rule(rules, ip, "loadbalancer IP", target);
            }
            if self.has_firewall() {
                let comment = format!("{} traffic not accepted by {firewall}", self.name);
                rules.shared_rule(SharedChain::FilterFirewall, |rule| {
                    self.to_address(rule.comment(comment), ip).jump("DROP");
                });
            }
            self.reject_external(rules, ip);
        }
        self.node_port_rules(rules, external);
        self.health_check_port(rules);
    }

    fn to_address<'r>(&self, rule: Rule<'r>, ip: std::net::IpAddr) -> Rule<'r> {
        rule.destination(host(ip)).port(self.port.name.protocol, self.port.port)
    }

    fn address_rule(&self, rules: &mut ServiceRules, ip: std::net::IpAddr, what: &str, target: ChainName) {
        let comment = format!("{} {what}", self.name);
        rules.shared_rule(SharedChain::NatServices, |rule| {
            self.to_address(rule.comment(comment), ip).jump(target)
        });
    }

    fn reject_external(&self, rules: &mut ServiceRules, ip: std::net::IpAddr) {
        if let Some(rejection) = self.external_rejection() {
            self.reject_address(rules, SharedChain::FilterExternalServices, ip, rejection);
        }
    }

    fn reject_address(
        &self,
        rules: &mut ServiceRules,
        chain: SharedChain,
        ip: std::net::IpAddr,
        rejection: Rejection,
    ) {
        rules.shared_rule(chain, |rule| {
            self.reject(self.to_address(rule.comment(self.rejection_comment(rejection)), ip), rejection);
        });
    }

    fn rejection_comment(&self, rejection: Rejection) -> String {
        match rejection {
            Rejection::Reject => format!("{} has no endpoints", self.name),
            Rejection::Drop => format!("{} has no local endpoints", self.name),
        }
    }

    fn reject(&self, rule: Rule<'_>, rejection: Rejection) {
        match rejection {
            Rejection::Reject => rule.reject(self.all.family),
            Rejection::Drop => rule.jump("DROP"),
        }
    }

    fn node_port_rules(&self, rules: &mut ServiceRules, external: ChainName) {
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
        if let Some(rejection) = self.external_rejection() {
            rules.shared_rule(SharedChain::FilterExternalServices, |rule| {
                let comment = self.rejection_comment(rejection);
                self.reject(
                    rule.comment(comment).destination_is_local().port(protocol, node_port),
                    rejection,
                );
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

    /// Renders the chain for traffic from outside. The traffic is masqueraded, except with traffic policy Local, which
    /// preserves the client's address; then traffic from pods and from the node itself is routed as inside the cluster.
    fn external_chain(&self, rules: &mut ServiceRules) {
        if !self.has_endpoints() || !self.port.externally_accessible() {
            return;
        }
        let name = &self.name;
        let cluster = self.names.chain(ServiceChainKind::Cluster);
        rules.begin_chain(self.names.chain(ServiceChainKind::External));
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
        if self.external_rejection().is_none() {
            let policy = self.names.chain(Self::policy_kind(self.port.external_local));
            rules.rule(|rule| rule.jump(policy));
        }
    }

    fn firewall_chain(&self, rules: &mut ServiceRules) {
        let Some(ranges) = self.port.source_ranges.as_ref().filter(|_| self.has_firewall()) else { return };
        let name = &self.name;
        let external = self.names.chain(ServiceChainKind::External);
        let comment = format!("{name} loadbalancer IP");
        rules.begin_chain(self.names.chain(ServiceChainKind::Firewall));
        for &range in ranges {
            rules.rule(|rule| rule.source(range).comment(&comment).jump(external));
        }
        // A load balancer may assign its address to the node, which then uses it as the source of packets to itself.
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
        self.policy_chain(ServiceChainKind::Cluster, &cluster, !self.port.internal_local, rules);
        self.policy_chain(ServiceChainKind::Local, &local, self.port.internal_local, rules);
    }

    fn policy_chain(
        &self,
        kind: ServiceChainKind,
        endpoints: &[&Endpoint],
        internal: bool,
        rules: &mut ServiceRules,
    ) {
        if endpoints.is_empty() {
            return;
        }
        rules.begin_chain(self.names.chain(kind));
        if internal {
            self.masquerade_cluster_ip(rules);
        }
        let chains: Vec<ChainName> = endpoints.iter().map(|e| self.names.endpoint(e)).collect();
        if let Some(seconds) = self.port.affinity {
            for (endpoint, chain) in endpoints.iter().zip(&chains) {
                rules.rule(|rule| {
                    self.endpoint_comment(rule, endpoint)
                        .seen_recently(chain, seconds, self.all.family)
                        .jump(chain);
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

    /// Masquerades traffic to the ClusterIP that does not come from a pod: its replies must pass this node.
    fn masquerade_cluster_ip(&self, rules: &mut ServiceRules) {
        let Some(cluster_ip) = self.port.cluster_ip else { return };
        let comment = format!("{} cluster IP", self.name);
        let local = self.all.local.as_ref().filter(|_| !self.all.masquerade_all);
        if local.is_none() && !self.all.masquerade_all {
            return;
        }
        rules.rule(|rule| {
            let rule = self.to_address(rule.comment(comment), cluster_ip);
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
        // Hairpin: a pod that reaches itself through the Service must not see its own address as the source.
        rules.rule(|rule| self.name_comment(rule).source(host(endpoint.ip)).jump("KUBE-MARK-MASQ"));
        rules.rule(|rule| {
            let mut rule = self.name_comment(rule);
            if self.port.affinity.is_some() {
                rule = rule.record_source(chain, self.all.family);
            }
            rule.protocol(self.port.name.protocol).dnat(endpoint.socket());
        });
    }
}

/// Returns the IPv4 loopback block, 127.0.0.0/8.
pub(crate) fn loopback_block() -> ipnet::IpNet {
    ipnet::IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8))
}
