//! The iptables rules of IPVS mode, which equal kube-proxy's.
//!
//! IPVS selects the endpoint. The rules select the connections to masquerade, reject connections to a Service's address
//! on other ports (kubernetes #72236), and enforce the source ranges of load balancers. They match against sets, so they
//! change only when a set gets its first entry or loses its last.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_cluster::desired::ClusterIpMasquerade;
use portcullis_cluster::{Family, Protocol};

use super::ip_set::{IpSet, PerSet};
use crate::iptables::{BaseChain, Jump, Rule, Table, guard_loopback, host, loopback_block};
use crate::node_facts::NodeFacts;
use crate::options::Options;
use crate::proxy_mode::ProxyMode;

/// The chain that drops the node's own connections to load balancer IPs whose source ranges do not contain it.
pub(super) const OUT_FILTER: &str = "KUBE-IPVS-OUT-FILTER";

const FILTER: &str = "KUBE-IPVS-FILTER";
const FIREWALL: &str = "KUBE-PROXY-FIREWALL";
const FORWARD: &str = "KUBE-FORWARD";
const LOAD_BALANCER: &str = "KUBE-LOAD-BALANCER";
const MARK_MASQUERADE: &str = "KUBE-MARK-MASQ";
const NODE_PORT: &str = "KUBE-NODE-PORT";
const POSTROUTING: &str = "KUBE-POSTROUTING";
const SERVICES: &str = "KUBE-SERVICES";
const SOURCE_RANGES: &str = "KUBE-SOURCE-RANGES-FIREWALL";

/// Returns the chains of this mode in a table.
pub(crate) fn names(table: Table) -> &'static [&'static str] {
    match table {
        Table::Filter => &[FORWARD, FILTER, OUT_FILTER, NODE_PORT, FIREWALL, SOURCE_RANGES],
        Table::Mangle => &[],
        Table::Nat => &[LOAD_BALANCER, MARK_MASQUERADE, NODE_PORT, POSTROUTING, SERVICES],
    }
}

/// Returns the jumps from built-in chains, in the order of the rules there.
pub(crate) fn jumps() -> Vec<Jump> {
    use Table::{Filter, Nat};
    const ACCESS: &str = "kubernetes ipvs access filter";
    const RULES: &str = "kube-proxy firewall rules";
    const PORTALS: &str = "kubernetes service portals";
    let rows: [(Table, &'static str, &str, &str); 9] = [
        (Filter, "INPUT", ACCESS, FILTER),
        (Filter, "INPUT", RULES, FIREWALL),
        (Filter, "INPUT", "kubernetes health check rules", NODE_PORT),
        (Filter, "FORWARD", RULES, FIREWALL),
        (Filter, "FORWARD", "kubernetes forwarding rules", FORWARD),
        (Filter, "OUTPUT", ACCESS, OUT_FILTER),
        (Nat, "PREROUTING", PORTALS, SERVICES),
        (Nat, "OUTPUT", PORTALS, SERVICES),
        (Nat, "POSTROUTING", "kubernetes postrouting rules", POSTROUTING),
    ];
    let jump = |(table, from, comment, to): (Table, &'static str, &str, &str)| {
        let mut rule = String::new();
        Rule::new(&mut rule).comment(comment).jump(to);
        Jump { table, from, rule }
    };
    rows.into_iter().map(jump).collect()
}

/// Returns the rule, without `-A CHAIN`, that drops the node's own connections to a load balancer IP. Their source is the
/// same address, which is on the dummy interface.
pub(super) fn drop_own(address: IpAddr, protocol: Protocol, port: u16) -> String {
    let mut text = String::new();
    Rule::new(&mut text).source(host(address)).virtual_server(protocol, address, port).jump("DROP");
    text
}

/// The inputs of the rules of a family.
pub(super) struct Rules<'a> {
    pub(super) family: Family,
    pub(super) options: &'a Options,
    pub(super) facts: &'a NodeFacts,
    /// For each set, whether it has entries.
    pub(super) filled: PerSet<bool>,
    /// The rules of [`OUT_FILTER`], without `-A CHAIN`.
    pub(super) out_filter: &'a [&'a str],
}

impl Rules<'_> {
    /// Renders all chains.
    pub(super) fn chains(self) -> Vec<BaseChain> {
        let mut out_filter = BaseChain::new(Table::Filter, OUT_FILTER);
        for rule in self.out_filter {
            out_filter.line(rule);
        }
        let mut masquerade = BaseChain::new(Table::Nat, MARK_MASQUERADE);
        masquerade.rule(|rule| rule.set_mark(self.options.masquerade_mark()));
        vec![
            self.forward(),
            self.access_filter(),
            out_filter,
            self.health_checks(),
            self.firewall(),
            self.source_ranges(),
            self.services(),
            self.load_balancers(),
            self.node_ports(),
            self.postrouting(),
            masquerade,
        ]
    }

    fn has(&self, set: IpSet) -> bool {
        self.filled[set]
    }

    fn name(&self, set: IpSet) -> String {
        set.name(self.family)
    }

    fn forward(&self) -> BaseChain {
        let mut chain = BaseChain::new(Table::Filter, FORWARD);
        chain.rule(|rule| {
            rule.comment("kubernetes forwarding rules").mark(self.options.masquerade_mark()).jump("ACCEPT");
        });
        chain.rule(|rule| {
            let rule = rule.comment("kubernetes forwarding conntrack rule");
            rule.ct_state("RELATED,ESTABLISHED").jump("ACCEPT");
        });
        chain
    }

    /// Rejects new connections to addresses of the dummy interface on ports that no Service has.
    fn access_filter(&self) -> BaseChain {
        let mut chain = BaseChain::new(Table::Filter, FILTER);
        if self.family == Family::V4 && self.facts.route_localnet {
            guard_loopback(&mut chain);
        }
        for set in [IpSet::LoadBalancer, IpSet::ClusterIp, IpSet::ExternalIp, IpSet::ExternalIpLocal] {
            chain.rule(|rule| rule.in_set(self.name(set), "dst,dst").jump("RETURN"));
        }
        chain.rule(|rule| rule.in_set(self.name(IpSet::HealthCheckNodePort), "dst").jump("RETURN"));
        chain.rule(|rule| rule.ct_state("NEW").in_set(self.name(IpSet::IpvsIps), "dst").reject(self.family));
        chain
    }

    fn health_checks(&self) -> BaseChain {
        let mut chain = BaseChain::new(Table::Filter, NODE_PORT);
        chain.rule(|rule| {
            let rule = rule.comment("Kubernetes health check node port");
            rule.in_set(self.name(IpSet::HealthCheckNodePort), "dst").jump("ACCEPT");
        });
        chain
    }

    fn firewall(&self) -> BaseChain {
        let mut chain = BaseChain::new(Table::Filter, FIREWALL);
        if self.has(IpSet::LoadBalancerFirewall) {
            chain.rule(|rule| {
                rule.comment("Kubernetes service load balancer ip + port for load balancer with sourceRange")
                    .in_set(self.name(IpSet::LoadBalancerFirewall), "dst,dst")
                    .jump(SOURCE_RANGES);
            });
        }
        chain
    }

    fn source_ranges(&self) -> BaseChain {
        const CIDR: &str =
            "Kubernetes service load balancer ip + port + source cidr for packet filter purpose";
        const IP: &str = "Kubernetes service load balancer ip + port + source IP for packet filter purpose";
        let mut chain = BaseChain::new(Table::Filter, SOURCE_RANGES);
        for (set, comment) in [(IpSet::LoadBalancerSourceCidr, CIDR), (IpSet::LoadBalancerSourceIp, IP)] {
            if self.has(set) {
                chain.rule(|rule| rule.comment(comment).in_set(self.name(set), "dst,dst,src").jump("RETURN"));
            }
        }
        chain.rule(|rule| rule.jump("DROP"));
        chain
    }

    fn services(&self) -> BaseChain {
        const EXTERNAL: &str = "Kubernetes service external ip + port for masquerade and filter purpose";
        const EXTERNAL_LOCAL: &str = "Kubernetes service external ip + port with externalTrafficPolicy=local";
        let mut chain = BaseChain::new(Table::Nat, SERVICES);
        chain.rule(|rule| rule.source(loopback(self.family)).jump("RETURN"));
        if self.has(IpSet::LoadBalancer) {
            chain.rule(|rule| {
                let rule = rule.comment("Kubernetes service lb portal");
                rule.in_set(self.name(IpSet::LoadBalancer), "dst,dst").jump(LOAD_BALANCER);
            });
        }
        if self.has(IpSet::ClusterIp) {
            self.masquerade_cluster_ips(&mut chain);
        }
        if self.has(IpSet::ExternalIp) {
            let set = self.name(IpSet::ExternalIp);
            chain.rule(|rule| rule.comment(EXTERNAL).in_set(&set, "dst,dst").jump(MARK_MASQUERADE));
            accept_external(&mut chain, &set, EXTERNAL);
        }
        if self.has(IpSet::ExternalIpLocal) {
            accept_external(&mut chain, &self.name(IpSet::ExternalIpLocal), EXTERNAL_LOCAL);
        }
        chain.rule(|rule| rule.destination_is_local().jump(NODE_PORT));
        // Rules of other programs for local destinations, such as host ports, must not redirect these connections.
        for set in [IpSet::ClusterIp, IpSet::LoadBalancer].into_iter().filter(|set| self.has(*set)) {
            chain.rule(|rule| rule.in_set(self.name(set), "dst,dst").jump("ACCEPT"));
        }
        chain
    }

    /// Masquerades connections to ClusterIPs from the sources for which [`Frontend::route`](portcullis_cluster::desired::Frontend::route)
    /// says so.
    fn masquerade_cluster_ips(&self, chain: &mut BaseChain) {
        const COMMENT: &str = "Kubernetes service cluster ip + port for masquerade purpose";
        let set = self.name(IpSet::ClusterIp);
        let routing = ProxyMode::Ipvs.routing_context(self.family, self.options, self.facts);
        match routing.cluster_ip_masquerade() {
            ClusterIpMasquerade::All => {
                chain.rule(|rule| rule.comment(COMMENT).in_set(&set, "dst,dst").jump(MARK_MASQUERADE));
            }
            ClusterIpMasquerade::NotFromPod => {
                if let Some(local) = self.options.detect_local.matching(self.family) {
                    let jump = |rule: Rule<'_>| rule.in_set(&set, "dst,dst").jump(MARK_MASQUERADE);
                    chain.rule(|rule| jump(rule.comment(COMMENT).not_local(&local)));
                }
            }
            // The node's own connections are known by their source, a ClusterIP.
            ClusterIpMasquerade::FromNode => {
                chain.rule(|rule| rule.comment(COMMENT).in_set(&set, "src,dst").jump(MARK_MASQUERADE));
            }
            ClusterIpMasquerade::Never => {}
        }
    }

    fn load_balancers(&self) -> BaseChain {
        let mut chain = BaseChain::new(Table::Nat, LOAD_BALANCER);
        if self.has(IpSet::LoadBalancerLocal) {
            chain.rule(|rule| {
                rule.comment("Kubernetes service load balancer ip + port with externalTrafficPolicy=local")
                    .in_set(self.name(IpSet::LoadBalancerLocal), "dst,dst")
                    .jump("RETURN");
            });
        }
        chain.rule(|rule| rule.jump(MARK_MASQUERADE));
        chain
    }

    fn node_ports(&self) -> BaseChain {
        let mut chain = BaseChain::new(Table::Nat, NODE_PORT);
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let letters = protocol.as_str().to_uppercase();
            let (suffix, matched) = match protocol {
                Protocol::Sctp => (" with type 'hash ip:port'", "dst,dst"),
                _ => ("", "dst"),
            };
            let (local, all) = (IpSet::local_node_ports(protocol), IpSet::node_ports(protocol));
            if self.has(local) {
                chain.rule(|rule| {
                    rule.of_protocol(protocol)
                        .comment(format_args!(
                            "Kubernetes nodeport {letters} port with externalTrafficPolicy=local{suffix}"
                        ))
                        .in_set(self.name(local), matched)
                        .jump("RETURN");
                });
            }
            if self.has(all) {
                chain.rule(|rule| {
                    rule.of_protocol(protocol)
                        .comment(format_args!(
                            "Kubernetes nodeport {letters} port for masquerade purpose{suffix}"
                        ))
                        .in_set(self.name(all), matched)
                        .jump(MARK_MASQUERADE);
                });
            }
        }
        chain
    }

    fn postrouting(&self) -> BaseChain {
        let mut chain = BaseChain::new(Table::Nat, POSTROUTING);
        if self.has(IpSet::LoopBack) {
            chain.rule(|rule| {
                rule.comment("Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose")
                    .in_set(self.name(IpSet::LoopBack), "dst,dst,src")
                    .masquerade(false);
            });
        }
        chain.rule(|rule| rule.not_mark(self.options.masquerade_mark()).jump("RETURN"));
        // The mark is cleared so that a packet that traverses the chain twice is masqueraded once.
        chain.rule(|rule| rule.flip_mark(self.options.masquerade_mark()));
        chain.rule(|rule| {
            rule.comment("kubernetes service traffic requiring SNAT")
                .masquerade(self.facts.iptables.random_fully);
        });
        chain
    }
}

/// Accepts connections from outside of the node, and those to the node itself. Packets from a bridge are a pod's, whose
/// client would get replies from another address.
fn accept_external(chain: &mut BaseChain, set: &str, comment: &str) {
    chain.rule(|rule| {
        let rule = rule.comment(comment).in_set(set, "dst,dst");
        rule.not_from_bridge().source_is_not_local().jump("ACCEPT");
    });
    chain.rule(|rule| {
        rule.comment(comment).in_set(set, "dst,dst").destination_is_local().jump("ACCEPT");
    });
}

fn loopback(family: Family) -> IpNet {
    match family {
        Family::V4 => loopback_block(),
        Family::V6 => host(std::net::Ipv6Addr::LOCALHOST.into()),
    }
}
