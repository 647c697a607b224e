//! Session affinity: a client's connections stay with the endpoint that served it last.
//!
//! ```text
//! @affinity    client . cluster IP . protocol and port . endpoint . its port      written by the rules, with a timeout
//!
//! affinity-…   for each endpoint: is the client remembered with it? then there, and remember it again
//!              else one of them at random, and remember that
//! ```
//! Such a Service has chains of its own, a rule or two an endpoint. (A map from clients to endpoints would do with shared
//! chains, but `nft` 1.0.6 breaks off when it lists a rule that writes to a map what it found in another.) What other
//! endpoints do leaves what is remembered alone; what is remembered of one that serves no more is deleted, see
//! [`super::stale_affinity`].

use std::net::IpAddr;
use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use portcullis_cluster::desired::{Endpoint, ServicePort};
use portcullis_netlink::nf_tables::{
    Chain, Comparison, DynsetOp, Expression, Field, Key, LookupResult, Register, Rule, Value, Verdict,
};
use sha2::{Digest, Sha256};

use super::endpoint_map::{TrafficPolicy, translate};
use super::names::AFFINITY;
use super::settings::Settings;

/// The chains of one Service's port. What is in a chain is told by its name, so that none is ever changed while packets
/// may be led to it: another one takes its place.
pub(super) struct Affinity<'a> {
    port: &'a ServicePort,
    /// The address by which its entries are told from those of other Services.
    cluster_ip: IpAddr,
    settings: &'a Settings,
    /// How long a client is remembered, in seconds.
    seconds: u32,
    cluster: EndpointMap,
    local: EndpointMap,
    external: Arc<str>,
}

/// The chain that picks an endpoint of a view.
struct EndpointMap {
    name: Arc<str>,
    endpoints: Vec<Endpoint>,
}

impl<'a> Affinity<'a> {
    /// `None` for a port without affinity.
    pub(super) fn of(port: &'a ServicePort, settings: &'a Settings) -> Option<Self> {
        let (seconds, cluster_ip) = (port.affinity?, port.cluster_ip?);
        let picking = |view: TrafficPolicy, what| {
            let endpoints = view.endpoints(port);
            let mut content = Sha256::new();
            content.update(cluster_ip.to_string());
            content.update(port.port.get().to_be_bytes());
            content.update(seconds.to_be_bytes());
            endpoints.iter().for_each(|to| content.update(format!("{} {},", to.ip, to.port)));
            EndpointMap { name: name(what, port, content), endpoints }
        };
        let cluster = picking(TrafficPolicy::Cluster, "affinity");
        let local = picking(TrafficPolicy::Local, "affinity-local");
        let mut content = Sha256::new();
        content.update([u8::from(port.external_local), u8::from(local.endpoints.is_empty())]);
        content.update(&*cluster.name);
        content.update(&*local.name);
        let external = name("affinity-external", port, content);
        Some(Affinity { port, cluster_ip, settings, seconds, cluster, local, external })
    }

    fn of_picking(&self, view: TrafficPolicy) -> &EndpointMap {
        match view {
            TrafficPolicy::Cluster => &self.cluster,
            TrafficPolicy::Local => &self.local,
        }
    }

    /// The endpoints of a view.
    pub(super) fn endpoints(&self, view: TrafficPolicy) -> &[Endpoint] {
        &self.of_picking(view).endpoints
    }

    /// The name of the chain that picks an endpoint of a view.
    pub(super) fn picking(&self, view: TrafficPolicy) -> Arc<str> {
        Arc::clone(&self.of_picking(view).name)
    }

    /// The name of the chain for what comes by an external address or a node port.
    pub(super) fn external(&self) -> Arc<str> {
        Arc::clone(&self.external)
    }

    /// The rules that send a client back, or else somewhere new and remember it.
    pub(super) fn picking_chain(&self, view: TrafficPolicy) -> Chain {
        let endpoints = self.endpoints(view);
        let again = endpoints.iter().map(|endpoint| {
            let found = Expression::Lookup {
                set: AFFINITY.into(),
                key: Register::FIRST,
                result: LookupResult::Found,
            };
            self.serve(self.load(Rule::new(), endpoint).push(found), endpoint)
        });
        let left = (1..=endpoints.len() as u32).rev();
        let anew = endpoints.iter().zip(left).map(|(endpoint, left)| {
            let rule = match left {
                1 => Rule::new(),
                left => {
                    let random = Field::Random { modulus: left, offset: 0 };
                    Rule::new().compare(random, Comparison::Equal, Value::new(&0u32.to_ne_bytes()))
                }
            };
            self.serve(self.load(rule, endpoint), endpoint)
        });
        Chain::new(again.chain(anew).collect())
    }

    /// What comes from outside: as the external policy has it.
    pub(super) fn external_chain(&self) -> Chain {
        let cluster = || Verdict::Goto(self.picking(TrafficPolicy::Cluster));
        let mark = |rule: Rule| rule.set_mark(self.settings.mark);
        let mut rules = Vec::new();
        if self.port.external_local {
            let pods = self.settings.of_pods(Rule::new(), false);
            rules.extend(pods.map(|rule| rule.then(cluster()).with_comment("short-circuit pod traffic")));
            let local = Rule::new().from_local();
            rules.push(mark(local.clone()).with_comment("masquerade local traffic"));
            rules.push(local.then(cluster()).with_comment("short-circuit local traffic"));
            if !self.local.endpoints.is_empty() {
                rules.push(Rule::new().then(Verdict::Goto(self.picking(TrafficPolicy::Local))));
            }
        } else {
            rules.push(mark(Rule::new()).with_comment("masquerade"));
            rules.push(Rule::new().then(cluster()));
        }
        Chain::new(rules)
    }

    /// Protocol and port of the Service in one number: a key of six parts has no type that could be read back.
    fn protocol_and_port(&self) -> u32 {
        u32::from(self.port.name.protocol.number()) << 16 | u32::from(self.port.port.get())
    }

    /// What stands behind the client in the set.
    pub(super) fn remembered(&self, endpoint: &Endpoint) -> Key {
        let service = Key::from(self.cluster_ip).number(self.protocol_and_port());
        service.address(endpoint.ip).port(endpoint.port.get())
    }

    /// Puts client, Service and endpoint into registers.
    fn load(&self, rule: Rule, endpoint: &Endpoint) -> Rule {
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

    /// Remembers what is in registers, and sends the packet to the endpoint there.
    fn serve(&self, rule: Rule, endpoint: &Endpoint) -> Rule {
        let rule = rule.push(Expression::Dynset {
            set: AFFINITY.into(),
            op: DynsetOp::Update,
            key: Register::FIRST,
            data: None,
            timeout: Some(u64::from(self.seconds) * 1000),
        });
        let to = Register::FIRST;
        let port = to.after(self.settings.address().length());
        let rule = rule
            .push(Expression::Immediate { value: endpoint.ip.into(), to })
            .push(Expression::Immediate { value: endpoint.port.get().into(), to: port });
        translate(rule, self.settings, to)
    }
}

/// A name that people recognise, and that no other chain and no other content has.
fn name(what: &str, port: &ServicePort, content: Sha256) -> Arc<str> {
    let name = &port.name;
    let (service, port) = (&name.service, name.port.as_str());
    let readable = format!("{}/{}/{}/{port}", service.namespace, service.name, name.protocol);
    let readable = readable.to_lowercase();
    let hash = BASE32_NOPAD.encode(&content.chain_update(&readable).finalize()[..10]);
    // A name has 255 bytes at most (`NFT_NAME_MAXLEN`), and the hash tells long ones apart.
    let readable = &readable[..readable.floor_char_boundary(200)];
    format!("{what}-{hash}-{readable}").into()
}
