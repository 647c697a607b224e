//! Session affinity: connections of a client go to the endpoint of its previous connection.
//!
//! ```text
//! @affinity    client . cluster IP . protocol and port . endpoint . its port      entries with a timeout, written by rules
//!
//! affinity-…   for each endpoint: if the client has an entry, update the entry and forward to the endpoint
//!              else a random endpoint: add an entry and forward
//! ```
//! A Service with session affinity has chains of its own, with two rules per endpoint. (A map from clients to endpoints would
//! allow shared chains, but `nft` 1.0.6 aborts when it lists a rule that writes to a map what it read from another.) Changes
//! of other endpoints keep the entries; those of a removed endpoint are deleted, see `sync/stale_affinity.rs`.

use std::net::IpAddr;
use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use portcullis_cluster::TrafficPolicy;
use portcullis_cluster::desired::{Endpoint, Frontend, ServicePort, SourceClass};
use portcullis_netlink::nf_tables::{
    Chain, Comparison, DynsetOp, Expression, Field, Key, LookupResult, Register, Rule, Value, Verdict,
};
use sha2::{Digest, Sha256};

use super::endpoint_map::{dnat, numbered_endpoints};
use super::names::AFFINITY;
use super::settings::Settings;

/// The chains of a port with session affinity. Their names contain a hash of their contents, so that a chain never changes
/// while packets may jump to it: a chain with another name replaces it.
pub(super) struct Affinity<'a> {
    port: &'a ServicePort,
    /// Identifies the Service in entries.
    cluster_ip: IpAddr,
    settings: &'a Settings,
    timeout_seconds: u32,
    cluster: EndpointChain,
    local: EndpointChain,
    external_name: Arc<str>,
}

/// The chain that selects one of the endpoints of a traffic policy.
struct EndpointChain {
    name: Arc<str>,
    endpoints: Vec<Endpoint>,
}

impl<'a> Affinity<'a> {
    /// Returns `None` for a port without session affinity.
    pub(super) fn new(port: &'a ServicePort, settings: &'a Settings) -> Option<Self> {
        let (timeout_seconds, cluster_ip) = (port.affinity?, port.cluster_ip?);
        let endpoint_chain = |policy: TrafficPolicy, prefix| {
            let endpoints = numbered_endpoints(port, policy);
            let mut content = Sha256::new();
            content.update(cluster_ip.to_string());
            content.update(port.port.get().to_be_bytes());
            content.update(timeout_seconds.to_be_bytes());
            endpoints.iter().for_each(|to| content.update(format!("{} {},", to.ip, to.port)));
            EndpointChain { name: chain_name(prefix, port, content), endpoints }
        };
        let cluster = endpoint_chain(TrafficPolicy::Cluster, "affinity");
        let local = endpoint_chain(TrafficPolicy::Local, "affinity-local");
        let mut content = Sha256::new();
        content.update([u8::from(port.external_policy.is_local()), u8::from(local.endpoints.is_empty())]);
        content.update(&*cluster.name);
        content.update(&*local.name);
        let external_name = chain_name("affinity-external", port, content);
        Some(Affinity { port, cluster_ip, settings, timeout_seconds, cluster, local, external_name })
    }

    fn of_policy(&self, policy: TrafficPolicy) -> &EndpointChain {
        match policy {
            TrafficPolicy::Cluster => &self.cluster,
            TrafficPolicy::Local => &self.local,
        }
    }

    /// Returns the endpoints of a traffic policy.
    pub(super) fn endpoints(&self, policy: TrafficPolicy) -> &[Endpoint] {
        &self.of_policy(policy).endpoints
    }

    /// Returns the name of the chain that selects an endpoint of a traffic policy.
    pub(super) fn chain_name(&self, policy: TrafficPolicy) -> Arc<str> {
        Arc::clone(&self.of_policy(policy).name)
    }

    /// Returns the name of the chain for external IPs, load balancer IPs and node ports.
    pub(super) fn external_chain_name(&self) -> Arc<str> {
        Arc::clone(&self.external_name)
    }

    /// Returns the chain that forwards a client to the endpoint of its entry, or to a random one and adds an entry.
    pub(super) fn endpoint_chain(&self, policy: TrafficPolicy) -> Chain {
        let endpoints = self.endpoints(policy);
        let known_clients = endpoints.iter().map(|endpoint| {
            let has_entry = Expression::Lookup {
                set: AFFINITY.into(),
                key: Register::FIRST,
                result: LookupResult::Found,
            };
            self.forward(self.load_entry(Rule::new(), endpoint).push(has_entry), endpoint)
        });
        let remaining = (1..=endpoints.len() as u32).rev();
        let new_clients = endpoints.iter().zip(remaining).map(|(endpoint, remaining)| {
            let rule = match remaining {
                1 => Rule::new(),
                remaining => {
                    let random = Field::Random { modulus: remaining, offset: 0 };
                    Rule::new().compare(random, Comparison::Equal, Value::new(&0u32.to_ne_bytes()))
                }
            };
            self.forward(self.load_entry(rule, endpoint), endpoint)
        });
        Chain::new(known_clients.chain(new_clients).collect())
    }

    /// Returns the chain that applies the external traffic policy to a frontend.
    pub(super) fn external_chain(&self, frontend: &Frontend<'_>) -> Chain {
        let [pods, node, other] = [SourceClass::Pod, SourceClass::Node, SourceClass::External]
            .map(|source| frontend.route(source, &self.settings.routing));
        let goto = |policy| Verdict::Goto(self.chain_name(policy));
        let mark = |rule: Rule| rule.set_mark(self.settings.mark);
        let mut rules = Vec::new();
        if pods.policy != other.policy {
            let match_pods = self.settings.match_pods(Rule::new(), false);
            rules.extend(
                match_pods.map(|rule| rule.then(goto(pods.policy)).with_comment("short-circuit pod traffic")),
            );
        }
        if node.policy != other.policy {
            let local = Rule::new().from_local();
            rules.push(mark(local.clone()).with_comment("masquerade local traffic"));
            rules.push(local.then(goto(node.policy)).with_comment("short-circuit local traffic"));
        }
        if other.masquerade.is_some() {
            rules.push(mark(Rule::new()).with_comment("masquerade"));
        }
        if !self.endpoints(other.policy).is_empty() {
            rules.push(Rule::new().then(goto(other.policy)));
        }
        Chain::new(rules)
    }

    /// Returns protocol and port of the Service in one number: `nft` cannot encode the type of a key of six parts.
    fn protocol_and_port(&self) -> u32 {
        u32::from(self.port.name.protocol.number()) << 16 | u32::from(self.port.port.get())
    }

    /// Returns the key of the entries of an endpoint without the client, which is the first part.
    pub(super) fn entry_key(&self, endpoint: &Endpoint) -> Key {
        let service = Key::from(self.cluster_ip).number(self.protocol_and_port());
        service.address(endpoint.ip).port(endpoint.port.get())
    }

    /// Loads the key of the entry for the packet's source and an endpoint into registers.
    fn load_entry(&self, rule: Rule, endpoint: &Endpoint) -> Rule {
        let constants = [
            Value::from(self.cluster_ip),
            Value::new(&self.protocol_and_port().to_ne_bytes()),
            Value::from(endpoint.ip),
            Value::from(endpoint.port.get()),
        ];
        let client = self.settings.source();
        let mut at = Register::FIRST.after(client.length());
        let mut rule = rule.load(&[client], Register::FIRST);
        for value in constants {
            rule = rule.push(Expression::Immediate { value, to: at });
            at = at.after(value.bytes().len());
        }
        rule
    }

    /// Updates the entry whose key is in registers, and forwards the packet to the endpoint.
    fn forward(&self, rule: Rule, endpoint: &Endpoint) -> Rule {
        let rule = rule.push(Expression::Dynset {
            set: AFFINITY.into(),
            op: DynsetOp::Update,
            key: Register::FIRST,
            data: None,
            timeout: Some(u64::from(self.timeout_seconds) * 1000),
        });
        let to = Register::FIRST;
        let port = to.after(self.settings.address().length());
        let rule = rule
            .push(Expression::Immediate { value: endpoint.ip.into(), to })
            .push(Expression::Immediate { value: endpoint.port.get().into(), to: port });
        dnat(rule, self.settings, to)
    }
}

/// Returns a readable chain name that no other content shares.
fn chain_name(prefix: &str, port: &ServicePort, content: Sha256) -> Arc<str> {
    let name = &port.name;
    let (service, port) = (&name.service, name.port.as_str());
    let readable = format!("{}/{}/{}/{port}", service.namespace, service.name, name.protocol);
    let readable = readable.to_lowercase();
    let hash = BASE32_NOPAD.encode(&content.chain_update(&readable).finalize()[..10]);
    // A name has 255 bytes at most (`NFT_NAME_MAXLEN`). The hash distinguishes truncated names.
    let readable = &readable[..readable.floor_char_boundary(200)];
    format!("{prefix}-{hash}-{readable}").into()
}
