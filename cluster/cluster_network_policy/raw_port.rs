//! Ports of ClusterNetworkPolicies as in JSON, and their conversion.

use serde::Deserialize;

use super::ClusterNetworkPolicyPort;
use crate::policy_size::WEIGHT;
use crate::port_name::{self, PORT_NAME};
use crate::problem::Problem;
use crate::protocol::Protocol;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawProtocol {
    tcp: Option<RawPorts>,
    udp: Option<RawPorts>,
    sctp: Option<RawPorts>,
    destination_named_port: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPorts {
    destination_port: Option<RawPort>,
}

#[derive(Deserialize)]
struct RawPort {
    number: Option<i64>,
    range: Option<RawRange>,
}

#[derive(Deserialize)]
struct RawRange {
    start: i64,
    end: i64,
}

impl RawProtocol {
    /// Returns the number of its entries ([`policy_size::MAX_POLICY_ENTRIES`](crate::policy_size::MAX_POLICY_ENTRIES)). A named
    /// port may be one of three protocols.
    pub(super) fn entries(&self) -> usize {
        if self.destination_named_port.is_some() { 3 * WEIGHT } else { 1 }
    }

    pub(super) fn convert(self, path: &str, problems: &mut Vec<Problem>) -> Option<ClusterNetworkPolicyPort> {
        let name = self.destination_named_port.filter(|name| !name.is_empty());
        let expected = "one of tcp, udp, sctp and destinationNamedPort";
        let ports = [(Protocol::Tcp, self.tcp), (Protocol::Udp, self.udp), (Protocol::Sctp, self.sctp)];
        let mut ports: Vec<(Protocol, RawPorts)> =
            ports.into_iter().filter_map(|(protocol, ports)| Some((protocol, ports?))).collect();
        match (ports.pop(), name) {
            (Some((protocol, port)), None) if ports.is_empty() => {
                port.convert(protocol, &format!("{path}.{protocol}.destinationPort"), problems)
            }
            (None, Some(name)) => {
                let read = port_name::parse(&name);
                if read.is_none() {
                    problems.push(Problem::new(format!("{path}.destinationNamedPort"), name, PORT_NAME));
                }
                read.map(ClusterNetworkPolicyPort::Named)
            }
            (None, None) => {
                problems.push(Problem::new(path, "{}", expected));
                None
            }
            _ => {
                problems.push(Problem::new(path, "several of them", expected));
                None
            }
        }
    }
}

impl RawPorts {
    fn convert(
        self,
        protocol: Protocol,
        path: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<ClusterNetworkPolicyPort> {
        let valid = |n: i64| u16::try_from(n).ok().filter(|n| *n > 0);
        let (bounds, field, value) = match self.destination_port {
            Some(RawPort { number: Some(number), range: None }) => {
                (valid(number).map(|n| (n, n)), ".number", number.to_string())
            }
            Some(RawPort { number: None, range: Some(RawRange { start, end }) }) => {
                let bounds = valid(start).zip(valid(end)).filter(|(first, last)| first <= last);
                (bounds, ".range", format!("{start}-{end}"))
            }
            Some(RawPort { number: Some(_), range: Some(_) }) => (None, "", "number and range".to_owned()),
            Some(RawPort { number: None, range: None }) => (None, "", "{}".to_owned()),
            None => (None, "", String::new()),
        };
        if bounds.is_none() {
            let expected = "either number, from 1 to 65535, or range with a start not above its end";
            problems.push(Problem::new(format!("{path}{field}"), value, expected));
        }
        bounds.map(|(first, last)| ClusterNetworkPolicyPort::Range { protocol, first, last })
    }
}
