//! EndpointSlices (`discovery.k8s.io/v1`), in a compact form: a cluster has more endpoints than anything else.

use std::net::IpAddr;
use std::num::NonZeroU16;

use jiff::Timestamp;
use serde::Deserialize;

use crate::address::{Family, NOT_SPECIAL, is_special, parse_ip};
use crate::endpoint_topology::EndpointTopology;
use crate::labels::null_is_empty;
use crate::metadata::{Metadata, is_name};
use crate::name::{Name, NamespacedName};
use crate::port_name;
use crate::problem::{Problem, set_consequence};
use crate::protocol::Protocol;
use crate::service::{HEADLESS_LABEL, SERVICE_PROXY_NAME_LABEL, port_number};
use crate::slice_endpoints::SliceEndpoints;

/// The label that names the Service of a slice.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The annotation with the time of the change that made the controller write the slice.
const TRIGGER_TIME_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// A slice of the endpoints of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Its namespace and name.
    pub key: NamespacedName,
    /// Its Service; `None` for slices that this proxy ignores: without a Service, of a headless Service, for another proxy, or
    /// with DNS names instead of addresses.
    pub service: Option<NamespacedName>,
    /// The ports of all its endpoints.
    pub ports: Box<[EndpointPort]>,
    /// Its endpoints.
    pub endpoints: SliceEndpoints,
    /// The time of the change that led to this version of the slice.
    pub trigger_time: Option<Timestamp>,
}

/// A port of all endpoints of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// Its name, which is the name of the Service port.
    pub name: Name,
    /// The port number on the endpoints.
    pub port: NonZeroU16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// The conditions of an endpoint, with the defaults of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointConditions(u8);

impl EndpointConditions {
    const READY: u8 = 1;
    const SERVING: u8 = 2;
    const TERMINATING: u8 = 4;

    /// Returns these conditions.
    pub fn new(ready: bool, serving: bool, terminating: bool) -> Self {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        EndpointConditions(
            bit(ready, Self::READY) | bit(serving, Self::SERVING) | bit(terminating, Self::TERMINATING),
        )
    }

    /// Returns true if it takes new connections.
    pub fn ready(self) -> bool {
        self.0 & Self::READY != 0
    }

    /// Returns true if it responds, whether it is ready or terminating.
    pub fn serving(self) -> bool {
        self.0 & Self::SERVING != 0
    }

    /// Returns true if it is terminating.
    pub fn terminating(self) -> bool {
        self.0 & Self::TERMINATING != 0
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawEndpointSlice {
    metadata: Metadata,
    address_type: Option<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    endpoints: Vec<RawEndpoint>,
    #[serde(default, deserialize_with = "null_is_empty")]
    ports: Vec<RawPort>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEndpoint {
    #[serde(default, deserialize_with = "null_is_empty")]
    addresses: Vec<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    conditions: RawConditions,
    node_name: Option<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    hints: RawHints,
}

#[derive(Default, Deserialize)]
struct RawConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHints {
    #[serde(default, deserialize_with = "null_is_empty")]
    for_zones: Vec<RawHint>,
    #[serde(default, deserialize_with = "null_is_empty")]
    for_nodes: Vec<RawHint>,
}

#[derive(Deserialize)]
struct RawHint {
    name: String,
}

#[derive(Deserialize)]
struct RawPort {
    name: Option<String>,
    port: Option<i64>,
    protocol: Option<String>,
}

impl RawEndpointSlice {
    pub(crate) fn convert(self, problems: &mut Vec<Problem>) -> EndpointSlice {
        let family = match self.address_type.as_deref() {
            Some("IPv4") => Some(Family::V4),
            Some("IPv6") => Some(Family::V6),
            Some("FQDN") => None,
            other => {
                let expected = "IPv4, IPv6 or FQDN";
                problems.push(Problem::new("addressType", other.unwrap_or_default(), expected));
                None
            }
        };
        let labels = &self.metadata.labels;
        let concerns_us = family.is_some()
            && !labels.contains_key(HEADLESS_LABEL)
            && !labels.contains_key(SERVICE_PROXY_NAME_LABEL);
        let service = labels.get(SERVICE_NAME_LABEL).filter(|name| !name.is_empty() && concerns_us);
        let service = service.filter(|name| {
            let problem = (!is_name(name)).then(|| {
                let field = format!("metadata.labels[{SERVICE_NAME_LABEL}]");
                Problem::new(field, name, "a Service's name")
                    .with_consequence("the slice belongs to no Service")
            });
            let is_valid = problem.is_none();
            problems.extend(problem);
            is_valid
        });
        let service = service.map(|name| NamespacedName::new(self.metadata.namespace(), name));
        let trigger_time =
            self.metadata.annotations.get(TRIGGER_TIME_ANNOTATION).and_then(|t| t.parse().ok());
        let key = self.metadata.key();
        let (Some(service), Some(family)) = (service, family) else {
            return EndpointSlice {
                key,
                service: None,
                ports: Box::default(),
                endpoints: SliceEndpoints::default(),
                trigger_time,
            };
        };
        let endpoints =
            self.endpoints.into_iter().enumerate().filter_map(|(i, e)| e.convert(i, family, problems));
        let endpoints = SliceEndpoints::new(family, endpoints);
        let ports = self.ports.into_iter().enumerate().filter_map(|(i, p)| p.convert(i, problems)).collect();
        EndpointSlice { key, service: Some(service), ports, endpoints, trigger_time }
    }
}

impl RawEndpoint {
    fn convert(
        self,
        i: usize,
        family: Family,
        problems: &mut Vec<Problem>,
    ) -> Option<(IpAddr, EndpointConditions, EndpointTopology)> {
        let text = self.addresses.first().map_or("", String::as_str);
        let address = parse_ip(text).filter(|address| Family::from_address(*address) == family);
        let Some(address) = address.filter(|address| !is_special(*address)) else {
            let expected = match address {
                None => "an IP address of the slice's addressType",
                Some(_) => NOT_SPECIAL,
            };
            let problem = Problem::new(format!("endpoints[{i}].addresses[0]"), text, expected);
            problems.push(problem.with_consequence("this endpoint gets no traffic"));
            return None;
        };
        let c = self.conditions;
        fn names(hints: &[RawHint]) -> impl Iterator<Item = &str> {
            hints.iter().map(|hint| hint.name.as_str())
        }
        let conditions = EndpointConditions::new(
            c.ready.unwrap_or(true),
            c.serving.unwrap_or(true),
            c.terminating.unwrap_or(false),
        );
        let topology = EndpointTopology::new(
            self.node_name.as_deref(),
            names(&self.hints.for_zones),
            names(&self.hints.for_nodes),
        );
        Some((address, conditions, topology))
    }
}

impl RawPort {
    fn convert(self, i: usize, problems: &mut Vec<Problem>) -> Option<EndpointPort> {
        let known_before = problems.len();
        let port = self.convert_number(i, problems);
        set_consequence(&mut problems[known_before..], "no traffic is sent to this port");
        port
    }

    fn convert_number(self, i: usize, problems: &mut Vec<Problem>) -> Option<EndpointPort> {
        let protocol = Protocol::parse(self.protocol.as_deref(), format!("ports[{i}].protocol"), problems)?;
        Some(EndpointPort {
            name: port_name::parse_service_port_name(
                self.name.as_deref(),
                format!("ports[{i}].name"),
                problems,
            )?,
            // A port without a number means all ports, to which a Service cannot forward connections.
            port: port_number(format!("ports[{i}].port"), self.port?, problems)?,
            protocol,
        })
    }
}
