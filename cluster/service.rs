//! Services, with only what a proxy needs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::address::{Family, parse_cidr, parse_ip};
use crate::labels::null_is_empty;
use crate::name::{Name, NamespacedName};
use crate::object::Metadata;
use crate::problem::Problem;
use crate::protocol::Protocol;
use crate::scheduler::{SCHEDULER_ANNOTATION, Scheduler};

/// The label by which a Service asks for another proxy than kube-proxy.
pub const SERVICE_PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// The label of headless Services and of their EndpointSlices.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Session affinity's timeout where the object has none, in seconds (API reference).
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its namespace and name.
    pub key: NamespacedName,
    /// Why it is not proxied, if it is not.
    pub ignored: Option<Ignored>,
    /// The labels of its pods (`spec.selector`), by which a controller makes its EndpointSlices; empty where slices
    /// come from elsewhere. Not interned, as a tenant can change it at will.
    pub selector: Box<[(Box<str>, Box<str>)]>,
    /// Its ClusterIPs, at most one a family.
    pub cluster_ips: Box<[IpAddr]>,
    /// Its ports.
    pub ports: Box<[Port]>,
    /// `externalIPs` of both families.
    pub external_ips: Box<[IpAddr]>,
    /// Ingress addresses of the load balancer whose packets arrive with them as destination (`ipMode: VIP`).
    pub load_balancer_vips: Box<[IpAddr]>,
    /// Who may use the load balancer's addresses, of both families; empty is everybody.
    pub source_ranges: Box<[IpNet]>,
    /// Session affinity by client address, with its timeout in seconds.
    pub affinity: Option<u32>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local` on a Service that can be reached from outside.
    pub external_local: bool,
    /// Where the load balancer asks whether this node has endpoints.
    pub health_check_node_port: Option<NonZeroU16>,
    /// The IPVS scheduler that it asks for by annotation.
    pub scheduler: Option<Scheduler>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name; empty for the only port of a Service.
    pub name: Name,
    /// Its number on the Service's addresses.
    pub port: NonZeroU16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number on the nodes' addresses.
    pub node_port: Option<NonZeroU16>,
}

/// Why a Service is not proxied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// It has no ClusterIP (`None` or not given yet).
    NoClusterIp,
    /// It is of type `ExternalName`.
    ExternalName,
    /// It bears [`SERVICE_PROXY_NAME_LABEL`].
    OtherProxy,
    /// It bears [`HEADLESS_LABEL`].
    Headless,
}

#[derive(Deserialize)]
pub(crate) struct Wire {
    metadata: Metadata,
    #[serde(default, deserialize_with = "null_is_empty")]
    spec: Spec,
    #[serde(default, deserialize_with = "null_is_empty")]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default, deserialize_with = "null_is_empty")]
    selector: BTreeMap<String, Value>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs", default, deserialize_with = "null_is_empty")]
    cluster_ips: Vec<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    ports: Vec<WirePort>,
    #[serde(rename = "externalIPs", default, deserialize_with = "null_is_empty")]
    external_ips: Vec<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    load_balancer_source_ranges: Vec<String>,
    session_affinity: Option<String>,
    session_affinity_config: Option<AffinityConfig>,
    internal_traffic_policy: Option<String>,
    external_traffic_policy: Option<String>,
    health_check_node_port: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePort {
    name: Option<String>,
    port: i64,
    protocol: Option<String>,
    node_port: Option<i64>,
}

#[derive(Deserialize)]
struct AffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: Option<ClientIpConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientIpConfig {
    timeout_seconds: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default, deserialize_with = "null_is_empty")]
    load_balancer: LoadBalancer,
}

#[derive(Default, Deserialize)]
struct LoadBalancer {
    #[serde(default, deserialize_with = "null_is_empty")]
    ingress: Vec<Ingress>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ingress {
    ip: Option<String>,
    ip_mode: Option<String>,
}

impl Wire {
    pub(crate) fn slim(self, problems: &mut Vec<Problem>) -> Service {
        let ignored = self.ignored();
        let scheduler = Scheduler::read(self.metadata.annotations.get(SCHEDULER_ANNOTATION), problems);
        let spec = self.spec;
        let kind = spec.kind.as_deref().unwrap_or("ClusterIP");
        let cluster_ips = match (spec.cluster_ips.is_empty(), spec.cluster_ip) {
            (true, Some(ip)) => vec![ip],
            _ => spec.cluster_ips,
        };
        let external_local = spec.external_traffic_policy.as_deref() == Some("Local")
            && (matches!(kind, "NodePort" | "LoadBalancer") || !spec.external_ips.is_empty());
        let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let client_ip = spec.session_affinity_config.and_then(|c| c.client_ip);
            client_ip.and_then(|c| c.timeout_seconds).unwrap_or(DEFAULT_AFFINITY_SECONDS)
        });
        let health_check_node_port =
            spec.health_check_node_port.filter(|_| kind == "LoadBalancer" && external_local);
        let cluster_ips = match ignored {
            Some(_) => Box::default(),
            None => addresses("spec.clusterIPs", cluster_ips.iter().enumerate(), &Family::BOTH, problems),
        };
        let families: Vec<Family> = match cluster_ips.is_empty() {
            true => Family::BOTH.into(),
            false => cluster_ips.iter().copied().map(Family::of).collect(),
        };
        let vips = self.status.load_balancer.ingress.iter().enumerate();
        let vips = vips.filter(|(_, i)| i.ip_mode.as_deref() != Some("Proxy"));
        let vips =
            vips.filter_map(|(i, ingress)| ingress.ip.as_ref().filter(|ip| !ip.is_empty()).map(|ip| (i, ip)));
        // A load balancer may have addresses of both families for a Service of one: it translates, or refuses.
        let is_of_other_family =
            |ip: &str| parse_ip(ip).is_some_and(|address| !families.contains(&Family::of(address)));
        let vips = vips.filter(|(_, ip)| !is_of_other_family(ip));
        Service {
            key: self.metadata.key(),
            ignored,
            selector: selector(&spec.selector),
            cluster_ips,
            ports: spec.ports.into_iter().enumerate().filter_map(|(i, p)| p.slim(i, problems)).collect(),
            external_ips: addresses(
                "spec.externalIPs",
                spec.external_ips.iter().enumerate(),
                &families,
                problems,
            ),
            load_balancer_vips: addresses("status.loadBalancer.ingress", vips, &families, problems),
            source_ranges: source_ranges(&spec.load_balancer_source_ranges, &families, problems),
            affinity,
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local,
            health_check_node_port: health_check_node_port
                .filter(|p| *p != 0)
                .and_then(|p| port_number("spec.healthCheckNodePort".into(), p, problems)),
            scheduler,
        }
    }

    fn ignored(&self) -> Option<Ignored> {
        let labels = &self.metadata.labels;
        let spec = &self.spec;
        let unset = |ip: &str| ip.is_empty() || ip == "None";
        if spec.kind.as_deref() == Some("ExternalName") {
            return Some(Ignored::ExternalName);
        }
        if labels.contains_key(SERVICE_PROXY_NAME_LABEL) {
            return Some(Ignored::OtherProxy);
        }
        if labels.contains_key(HEADLESS_LABEL) {
            return Some(Ignored::Headless);
        }
        let first = spec.cluster_ip.as_ref().or(spec.cluster_ips.first());
        first.is_none_or(|ip| unset(ip)).then_some(Ignored::NoClusterIp)
    }
}

impl WirePort {
    fn slim(self, i: usize, problems: &mut Vec<Problem>) -> Option<Port> {
        let protocol =
            Protocol::read(self.protocol.as_deref(), format!("spec.ports[{i}].protocol"), problems)?;
        Some(Port {
            name: Name::new(self.name.as_deref().unwrap_or_default()),
            port: port_number(format!("spec.ports[{i}].port"), self.port, problems)?,
            protocol,
            node_port: self
                .node_port
                .filter(|p| *p != 0)
                .and_then(|p| port_number(format!("spec.ports[{i}].nodePort"), p, problems)),
        })
    }
}

/// The selector's labels. A value that is not text is kept as it is written: the selector only serves messages.
fn selector(labels: &BTreeMap<String, Value>) -> Box<[(Box<str>, Box<str>)]> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    labels.iter().map(|(key, value)| (key.as_str().into(), text(value).into())).collect()
}

/// A port number, or a problem.
pub(crate) fn port_number(field: String, number: i64, problems: &mut Vec<Problem>) -> Option<NonZeroU16> {
    let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
    if port.is_none() {
        problems.push(Problem::new(field, number, "a port from 1 to 65535"));
    }
    port
}

/// The addresses of these families; what is none, or of another, is a problem.
fn addresses<'a>(
    field: &str,
    texts: impl Iterator<Item = (usize, &'a String)>,
    families: &[Family],
    problems: &mut Vec<Problem>,
) -> Box<[IpAddr]> {
    let parsed = texts.filter_map(|(i, text)| {
        let expected = match parse_ip(text) {
            Some(address) if families.contains(&Family::of(address)) => return Some(address),
            Some(_) => "an address of a family in which the Service has a ClusterIP",
            None => "an IP address",
        };
        problems.push(Problem::new(format!("{field}[{i}]"), text, expected));
        None
    });
    parsed.collect()
}

fn source_ranges(texts: &[String], families: &[Family], problems: &mut Vec<Problem>) -> Box<[IpNet]> {
    let parsed = texts.iter().enumerate().filter_map(|(i, text)| {
        let expected = match parse_cidr(text) {
            Some(net) if families.contains(&Family::of_net(&net)) => return Some(net),
            Some(_) => "a block of a family in which the Service has a ClusterIP",
            None => "an address block such as 192.0.2.0/24",
        };
        problems.push(Problem::new(format!("spec.loadBalancerSourceRanges[{i}]"), text, expected));
        None
    });
    parsed.collect()
}
