//! The renderer of one Service's rules in one family.

use std::net::IpAddr;

use portcullis_cluster::desired::{
    Endpoint, Frontend, FrontendKind, MasqueradeReason, Rejection, RoutingContext, ServicePort, SourceClass,
};
use portcullis_cluster::{Family, TrafficPolicy};

use super::chain::{ChainName, ServiceChainKind, ServiceChainNames, SharedChain};
use super::nfacct::NFACCT_LOCALHOST_NODE_PORTS;
use super::rule::{Rule, host};
use super::service_rules::ServiceRules;
use crate::detect_local::LocalMatch;
use crate::node_facts::NodeFacts;
use crate::options::Options;
use crate::proxy_mode::ProxyMode;

/// The inputs that the rules of all Services of a family share.
pub(super) struct Renderer {
    pub(super) family: Family,
    local: Option<LocalMatch>,
    routing: RoutingContext,
    /// Count connections to node ports on loopback addresses.
    count_localhost_node_ports: bool,
}

impl Renderer {
    pub(super) fn new(family: Family, options: &Options, facts: &NodeFacts) -> Self {
        Renderer {
            family,
            local: options.detect_local.matching(family),
            routing: ProxyMode::Iptables.routing_context(family, options, facts),
            count_localhost_node_ports: family == Family::V4
                && facts.iptables.nfacct
                && options.serves_localhost_node_ports(),
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
            self.endpoint_chain(&endpoint, rules);
        }
    }

    fn has_endpoints(&self) -> bool {
        self.port.endpoints.has_usable()
    }

    fn policy_chain_name(&self, policy: TrafficPolicy) -> ChainName {
        self.names.chain(match policy {
            TrafficPolicy::Cluster => ServiceChainKind::Cluster,
            TrafficPolicy::Local => ServiceChainKind::Local,
        })
    }

    /// Renders the rules in shared chains, which match the frontends.
    fn shared_rules(&self, rules: &mut ServiceRules) {
        for frontend in self.port.frontends() {
            match (frontend.kind, frontend.address.ip()) {
                (FrontendKind::ClusterIp, Some(ip)) => self.cluster_ip_rules(rules, &frontend, ip),
                (_, Some(ip)) => self.external_ip_rules(rules, &frontend, ip),
                (_, None) => self.node_port_rules(rules, &frontend),
            }
        }
        self.health_check_port(rules);
    }

    fn cluster_ip_rules(&self, rules: &mut ServiceRules, frontend: &Frontend<'_>, ip: IpAddr) {
        match frontend.rejection() {
            None => {
                let target = self.policy_chain_name(frontend.traffic_policy());
                self.address_rule(rules, ip, "cluster IP", target);
            }
            Some(rejection) => self.reject_address(rules, SharedChain::FilterServices, ip, rejection),
        }
    }

    fn external_ip_rules(&self, rules: &mut ServiceRules, frontend: &Frontend<'_>, ip: IpAddr) {
        let has_firewall = frontend.allowed_sources(&self.all.routing).is_some();
        let firewall = self.names.chain(ServiceChainKind::Firewall);
        if self.has_endpoints() {
            let comment =
                if frontend.kind == FrontendKind::LoadBalancer { "loadbalancer IP" } else { "external IP" };
            let target = if has_firewall { firewall } else { self.names.chain(ServiceChainKind::External) };
            self.address_rule(rules, ip, comment, target);
        }
        if has_firewall {
            let comment = format!("{} traffic not accepted by {firewall}", self.name);
            rules.shared_rule(SharedChain::FilterFirewall, |rule| {
                self.to_address(rule.comment(comment), ip).jump("DROP");
            });
        }
        if let Some(rejection) = frontend.rejection() {
            self.reject_address(rules, SharedChain::FilterExternalServices, ip, rejection);
        }
    }

    fn to_address<'r>(&self, rule: Rule<'r>, ip: IpAddr) -> Rule<'r> {
        rule.destination(host(ip)).port(self.port.name.protocol, self.port.port)
    }

    fn address_rule(&self, rules: &mut ServiceRules, ip: IpAddr, what: &str, target: ChainName) {
        let comment = format!("{} {what}", self.name);
        rules.shared_rule(SharedChain::NatServices, |rule| {
            self.to_address(rule.comment(comment), ip).jump(target)
        });
    }

    fn reject_address(&self, rules: &mut ServiceRules, chain: SharedChain, ip: IpAddr, rejection: Rejection) {
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

    fn node_port_rules(&self, rules: &mut ServiceRules, frontend: &Frontend<'_>) {
        let Some(node_port) = self.port.node_port else { return };
        let external = self.names.chain(ServiceChainKind::External);
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
        if let Some(rejection) = frontend.rejection() {
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

    /// Renders the chain for external frontends. Connections are masqueraded, except with traffic policy Local, which preserves
    /// the client's address; pods and the node itself then use the endpoints of policy Cluster.
    fn external_chain(&self, rules: &mut ServiceRules) {
        let Some(frontend) = self.port.frontends().find(Frontend::is_external) else { return };
        if !self.has_endpoints() {
            return;
        }
        let name = &self.name;
        let [pods, node, other] = [SourceClass::Pod, SourceClass::Node, SourceClass::External]
            .map(|source| frontend.route(source, &self.all.routing));
        rules.begin_chain(self.names.chain(ServiceChainKind::External));
        if pods.policy != other.policy {
            let comment = format!("pod traffic for {name} external destinations");
            if let Some(local) = &self.all.local {
                rules.rule(|rule| {
                    rule.local(local).comment(comment).jump(self.policy_chain_name(pods.policy))
                });
            }
        }
        if node.policy != other.policy {
            let masquerade = format!("masquerade LOCAL traffic for {name} external destinations");
            rules.rule(|rule| rule.comment(masquerade).source_is_local().jump("KUBE-MARK-MASQ"));
            let route = format!("route LOCAL traffic for {name} external destinations");
            let target = self.policy_chain_name(node.policy);
            rules.rule(|rule| rule.comment(route).source_is_local().jump(target));
        }
        if other.masquerade.is_some() {
            let masquerade = format!("masquerade traffic for {name} external destinations");
            rules.rule(|rule| rule.comment(masquerade).jump("KUBE-MARK-MASQ"));
        }
        if other.rejection.is_none() {
            rules.rule(|rule| rule.jump(self.policy_chain_name(other.policy)));
        }
    }

    fn firewall_chain(&self, rules: &mut ServiceRules) {
        let allowed = |frontend: Frontend<'a>| frontend.allowed_sources(&self.all.routing);
        let Some(allowed) = self.port.frontends().find_map(allowed) else { return };
        let name = &self.name;
        let external = self.names.chain(ServiceChainKind::External);
        let comment = format!("{name} loadbalancer IP");
        rules.begin_chain(self.names.chain(ServiceChainKind::Firewall));
        for &range in allowed.ranges {
            rules.rule(|rule| rule.source(range).comment(&comment).jump(external));
        }
        for &ip in allowed.load_balancer_vips {
            rules.rule(|rule| rule.source(host(ip)).comment(&comment).jump(external));
        }
        let rest = format!("other traffic to {name} will be dropped by KUBE-PROXY-FIREWALL");
        rules.rule(|rule| rule.comment(rest).no_target());
    }

    fn policy_chains(&self, rules: &mut ServiceRules) {
        for policy in TrafficPolicy::ALL {
            let endpoints: Vec<Endpoint> = self.port.endpoints.for_policy(policy).collect();
            self.policy_chain(policy, &endpoints, rules);
        }
    }

    fn policy_chain(&self, policy: TrafficPolicy, endpoints: &[Endpoint], rules: &mut ServiceRules) {
        if endpoints.is_empty() {
            return;
        }
        rules.begin_chain(self.policy_chain_name(policy));
        if self.port.internal_policy == policy {
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

    /// Masquerades connections to the ClusterIP whose replies must pass this node: from all sources but pods.
    fn masquerade_cluster_ip(&self, rules: &mut ServiceRules) {
        let frontend = self.port.frontends().find(|frontend| !frontend.is_external());
        let Some((frontend, ip)) = frontend.and_then(|frontend| Some((frontend, frontend.address.ip()?)))
        else {
            return;
        };
        let local = match frontend.route(SourceClass::External, &self.all.routing).masquerade {
            None => return,
            Some(MasqueradeReason::MasqueradeAll) => None,
            Some(_) => self.all.local.as_ref(),
        };
        let comment = format!("{} cluster IP", self.name);
        rules.rule(|rule| {
            let rule = self.to_address(rule.comment(comment), ip);
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
