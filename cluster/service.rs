//! Services, with the fields that a proxy needs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::address::{Family, NOT_SPECIAL, is_ipv4_mapped_cidr, is_special, parse_cidr, parse_ip};
use crate::ipvs_scheduler::{IpvsScheduler, SCHEDULER_ANNOTATION};
use crate::labels::null_is_empty;
use crate::metadata::Metadata;
use crate::name::{Name, NamespacedName};
use crate::port_name;
use crate::problem::{Problem, set_consequence};
use crate::protocol::Protocol;
use crate::service_selector::ServiceSelector;
use crate::traffic_policy::TrafficPolicy;

/// The label by which a Service selects another proxy than kube-proxy.
pub const SERVICE_PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// The label of headless Services and of their EndpointSlices.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// The default timeout of session affinity, in seconds (API reference).
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its namespace and name.
    pub key: NamespacedName,
    /// Its creation time, in seconds since 1970; `None` if unknown (manifests).
    pub created: Option<i64>,
    /// Its UID; empty if it has none (manifests).
    pub uid: Box<str>,
    /// Its type.
    pub service_type: ServiceType,
    /// The reason why it is not proxied; `None` if it is.
    pub not_proxied: Option<NotProxiedReason>,
    /// The labels of its pods (`spec.selector`), from which a controller makes its EndpointSlices; empty if its slices have
    /// another origin.
    pub selector: ServiceSelector,
    /// Its ClusterIPs, at most one per family.
    pub cluster_ips: Box<[IpAddr]>,
    /// Its ports.
    pub ports: Box<[ServicePortSpec]>,
    /// `externalIPs` of both families.
    pub external_ips: Box<[IpAddr]>,
    /// Ingress addresses of the load balancer that its packets keep as destination (`ipMode: VIP`).
    pub load_balancer_vips: Box<[IpAddr]>,
    /// The clients that may use the load balancer's addresses, of both families.
    pub source_ranges: SourceRanges,
    /// Session affinity by client address, with its timeout in seconds.
    pub affinity: Option<u32>,
    /// `internalTrafficPolicy`.
    pub internal_policy: TrafficPolicy,
    /// `externalTrafficPolicy`; always `Cluster` for a Service without external frontends.
    pub external_policy: TrafficPolicy,
    /// The port on which the load balancer checks for local endpoints.
    pub health_check_node_port: Option<NonZeroU16>,
    /// The IPVS scheduler that its annotation selects.
    pub scheduler: Option<IpvsScheduler>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortSpec {
    /// Its name; empty for the only port of a Service.
    pub name: Name,
    /// Its number on the Service's addresses.
    pub port: NonZeroU16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number on the nodes' addresses.
    pub node_port: Option<NonZeroU16>,
}

/// The clients that may use the load balancer's addresses (`loadBalancerSourceRanges`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRanges {
    /// The valid blocks.
    pub nets: Box<[IpNet]>,
    /// An entry is invalid. The list then restricts clients even if it has no valid block.
    pub is_incomplete: bool,
}

impl SourceRanges {
    /// Returns the blocks of a family; `None` if every client of that family is allowed: without a list, with a block of all
    /// addresses, and, as in kube-proxy, with valid blocks of the other family only.
    pub fn in_family(&self, family: Family) -> Option<Box<[IpNet]>> {
        let nets: Box<[IpNet]> =
            self.nets.iter().filter(|net| Family::from_net(net) == family).copied().collect();
        let allows_all = nets.iter().any(|net| net.prefix_len() == 0);
        ((self.is_incomplete || !nets.is_empty()) && !allows_all).then_some(nets)
    }
}

/// The type of a Service (`spec.type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// `ClusterIP`, the default; also for an unknown type.
    #[default]
    ClusterIp,
    /// `NodePort`.
    NodePort,
    /// `LoadBalancer`.
    LoadBalancer,
    /// `ExternalName`.
    ExternalName,
}

impl ServiceType {
    fn from_field(text: Option<&str>) -> Self {
        match text {
            Some("NodePort") => ServiceType::NodePort,
            Some("LoadBalancer") => ServiceType::LoadBalancer,
            Some("ExternalName") => ServiceType::ExternalName,
            _ => ServiceType::ClusterIp,
        }
    }

    /// Returns its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            ServiceType::ClusterIp => "ClusterIP",
            ServiceType::NodePort => "NodePort",
            ServiceType::LoadBalancer => "LoadBalancer",
            ServiceType::ExternalName => "ExternalName",
        }
    }
}

/// The reason why a Service is not proxied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotProxiedReason {
    /// It has no ClusterIP yet.
    NoClusterIp,
    /// It is of type `ExternalName`.
    ExternalName,
    /// It has the label [`SERVICE_PROXY_NAME_LABEL`].
    OtherProxy,
    /// Its ClusterIP is `None`, or it has the label [`HEADLESS_LABEL`].
    Headless,
}

#[derive(Deserialize)]
pub(crate) struct RawService {
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
    ports: Vec<RawPort>,
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
struct RawPort {
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

impl RawService {
    pub(crate) fn convert(self, problems: &mut Vec<Problem>) -> Service {
        let not_proxied = self.not_proxied_reason();
        let scheduler =
            IpvsScheduler::parse_annotation(self.metadata.annotations.get(SCHEDULER_ANNOTATION), problems);
        let created = self.metadata.created(problems);
        let uid = self.metadata.uid.as_deref().unwrap_or_default().into();
        let spec = self.spec;
        let service_type = ServiceType::from_field(spec.kind.as_deref());
        let is_load_balancer = service_type == ServiceType::LoadBalancer;
        let cluster_ips = match (spec.cluster_ips.is_empty(), spec.cluster_ip) {
            (true, Some(ip)) => vec![ip],
            _ => spec.cluster_ips,
        };
        let is_external =
            is_load_balancer || service_type == ServiceType::NodePort || !spec.external_ips.is_empty();
        let external_policy = match is_external {
            true => TrafficPolicy::from_field(spec.external_traffic_policy.as_deref()),
            false => TrafficPolicy::Cluster,
        };
        let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let client_ip = spec.session_affinity_config.and_then(|c| c.client_ip);
            client_ip.and_then(|c| c.timeout_seconds).unwrap_or(DEFAULT_AFFINITY_SECONDS)
        });
        let health_check_node_port =
            spec.health_check_node_port.filter(|_| is_load_balancer && external_policy.is_local());
        let cluster_ips = match not_proxied {
            Some(_) => Box::default(),
            None => addresses("spec.clusterIPs", cluster_ips.iter().enumerate(), &Family::BOTH, problems),
        };
        let families: Vec<Family> = match cluster_ips.is_empty() {
            true => Family::BOTH.into(),
            false => cluster_ips.iter().copied().map(Family::from_address).collect(),
        };
        let vips = self.status.load_balancer.ingress.iter().enumerate();
        let vips = vips.filter(|(_, i)| i.ip_mode.as_deref() != Some("Proxy"));
        let vips =
            vips.filter_map(|(i, ingress)| ingress.ip.as_ref().filter(|ip| !ip.is_empty()).map(|ip| (i, ip)));
        // A load balancer may have addresses of both families for a single-stack Service: it translates or rejects connections.
        let is_of_other_family =
            |ip: &str| parse_ip(ip).is_some_and(|address| !families.contains(&Family::from_address(address)));
        let vips = vips.filter(|(_, ip)| !is_of_other_family(ip));
        Service {
            key: self.metadata.key(),
            created,
            uid,
            service_type,
            not_proxied,
            selector: selector(&spec.selector),
            cluster_ips,
            ports: spec.ports.into_iter().enumerate().filter_map(|(i, p)| p.convert(i, problems)).collect(),
            external_ips: addresses(
                "spec.externalIPs",
                spec.external_ips.iter().enumerate(),
                &families,
                problems,
            ),
            load_balancer_vips: addresses("status.loadBalancer.ingress", vips, &families, problems),
            source_ranges: source_ranges(&spec.load_balancer_source_ranges, &families, problems),
            affinity,
            internal_policy: TrafficPolicy::from_field(spec.internal_traffic_policy.as_deref()),
            external_policy,
            health_check_node_port: health_check_node_port
                .filter(|p| *p != 0)
                .and_then(|p| health_check_node_port_number(p, problems)),
            scheduler,
        }
    }

    fn not_proxied_reason(&self) -> Option<NotProxiedReason> {
        let labels = &self.metadata.labels;
        let spec = &self.spec;
        if spec.kind.as_deref() == Some("ExternalName") {
            return Some(NotProxiedReason::ExternalName);
        }
        if labels.contains_key(SERVICE_PROXY_NAME_LABEL) {
            return Some(NotProxiedReason::OtherProxy);
        }
        if labels.contains_key(HEADLESS_LABEL) {
            return Some(NotProxiedReason::Headless);
        }
        match spec.cluster_ip.as_ref().or(spec.cluster_ips.first()).map(String::as_str) {
            None | Some("") => Some(NotProxiedReason::NoClusterIp),
            Some("None") => Some(NotProxiedReason::Headless),
            Some(_) => None,
        }
    }
}

impl RawPort {
    fn convert(self, i: usize, problems: &mut Vec<Problem>) -> Option<ServicePortSpec> {
        let known_before = problems.len();
        let port = self.convert_number(i, problems);
        if port.is_none() {
            set_consequence(&mut problems[known_before..], "this port is not served");
        }
        let node_port = self
            .node_port
            .filter(|p| *p != 0)
            .and_then(|p| port_number(format!("spec.ports[{i}].nodePort"), p, problems));
        set_consequence(&mut problems[known_before..], "no node port is served for this port");
        let (port, protocol, name) = port?;
        Some(ServicePortSpec { name, port, protocol, node_port })
    }

    fn convert_number(&self, i: usize, problems: &mut Vec<Problem>) -> Option<(NonZeroU16, Protocol, Name)> {
        let protocol =
            Protocol::parse(self.protocol.as_deref(), format!("spec.ports[{i}].protocol"), problems)?;
        let name = port_name::parse_service_port_name(
            self.name.as_deref(),
            format!("spec.ports[{i}].name"),
            problems,
        )?;
        Some((port_number(format!("spec.ports[{i}].port"), self.port, problems)?, protocol, name))
    }
}

/// Converts the selector. A value that is not a string is kept as written, as the selector is only used in messages.
fn selector(labels: &BTreeMap<String, Value>) -> ServiceSelector {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    labels.iter().map(|(key, value)| (key, text(value))).collect()
}

fn health_check_node_port_number(number: i64, problems: &mut Vec<Problem>) -> Option<NonZeroU16> {
    let known_before = problems.len();
    let port = port_number("spec.healthCheckNodePort".into(), number, problems);
    set_consequence(&mut problems[known_before..], "health checks of the load balancer are not answered");
    port
}

/// Parses a port number, or adds a problem.
pub(crate) fn port_number(field: String, number: i64, problems: &mut Vec<Problem>) -> Option<NonZeroU16> {
    let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
    if port.is_none() {
        problems.push(Problem::new(field, number, "a port from 1 to 65535"));
    }
    port
}

/// Parses addresses of these families; adds problems for invalid addresses and those of another family.
fn addresses<'a>(
    field: &str,
    texts: impl Iterator<Item = (usize, &'a String)>,
    families: &[Family],
    problems: &mut Vec<Problem>,
) -> Box<[IpAddr]> {
    let parsed = texts.filter_map(|(i, text)| {
        let expected = match parse_ip(text) {
            Some(address) if is_special(address) => NOT_SPECIAL,
            Some(address) if families.contains(&Family::from_address(address)) => return Some(address),
            Some(_) => "an address of a family in which the Service has a ClusterIP",
            None => "an IP address",
        };
        let problem = Problem::new(format!("{field}[{i}]"), text, expected);
        problems.push(problem.with_consequence("the Service is not served at this address"));
        None
    });
    parsed.collect()
}

/// Parses `loadBalancerSourceRanges`. An invalid entry is a problem and still restricts clients; a block of another family
/// does not (as in kube-proxy).
fn source_ranges(texts: &[String], families: &[Family], problems: &mut Vec<Problem>) -> SourceRanges {
    let (mut nets, mut found) = (Vec::new(), Vec::new());
    let mut is_incomplete = false;
    for (i, text) in texts.iter().enumerate() {
        // The API server accepts surrounding blanks in this field.
        let net = parse_cidr(text.trim()).filter(|_| !is_ipv4_mapped_cidr(text.trim()));
        let expected = match net {
            Some(net) if families.contains(&Family::from_net(&net)) => {
                nets.push(net);
                continue;
            }
            Some(_) => "a block of a family in which the Service has a ClusterIP",
            None => "an address block such as 192.0.2.0/24",
        };
        is_incomplete |= net.is_none();
        found.push(Problem::new(format!("spec.loadBalancerSourceRanges[{i}]"), text, expected));
    }
    let ranges = SourceRanges { nets: nets.into(), is_incomplete };
    let is_open = families.iter().all(|family| ranges.in_family(*family).is_none());
    let consequence = match (ranges.nets.is_empty(), is_open) {
        (true, false) => "no client may use the load balancer's addresses",
        (true, true) => "every client may use the load balancer's addresses, as in kube-proxy",
        (false, false) => "this entry allows no client; the other entries still restrict clients",
        (false, true) => "every client may use the load balancer's addresses, as another entry allows",
    };
    set_consequence(&mut found, consequence);
    problems.extend(found);
    ranges
}
