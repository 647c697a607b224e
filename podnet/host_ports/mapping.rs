//! Port mappings as a container runtime passes them to the plugin (`runtimeConfig.portMappings`).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;

use portcullis_netlink::Family;
use serde::{Deserialize, Deserializer, Serialize, de};

/// A mapping of a port of the node to a port of a pod (CNI conventions, `portMappings`). containerd writes the keys as its fields in Go are
/// called, because the reference plugin, like all programs in Go, ignores the case of keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The port of the node.
    #[serde(alias = "HostPort")]
    pub host_port: NonZeroU16,
    /// The port of the pod.
    #[serde(alias = "ContainerPort")]
    pub container_port: NonZeroU16,
    /// The protocol; TCP if the runtime passes none.
    #[serde(default, alias = "Protocol")]
    pub protocol: TransportProtocol,
    /// The address of the node at which the port is served; `None` for all addresses of the node. `0.0.0.0` and `::` mean all
    /// addresses of their family.
    #[serde(
        rename = "hostIP",
        alias = "HostIP",
        default,
        deserialize_with = "host_ip",
        skip_serializing_if = "Option::is_none"
    )]
    pub host_ip: Option<IpAddr>,
}

/// The protocol of a port mapping. Runtimes write it in lower or upper case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl PortMapping {
    /// Returns true if the mapping serves addresses of this family.
    pub fn has_family(&self, family: Family) -> bool {
        self.host_ip.is_none_or(|ip| Family::from_address(ip) == family)
    }

    /// Returns the one address of the node at which the port is served; `None` for all addresses of the mapping's families.
    pub fn single_host_ip(&self) -> Option<IpAddr> {
        self.host_ip.filter(|ip| !ip.is_unspecified())
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            None => {}
        }
        write!(f, "{}/{}", self.host_port, self.protocol.as_str())
    }
}

impl TransportProtocol {
    const ALL: [TransportProtocol; 3] =
        [TransportProtocol::Tcp, TransportProtocol::Udp, TransportProtocol::Sctp];

    /// Returns its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            TransportProtocol::Tcp => "tcp",
            TransportProtocol::Udp => "udp",
            TransportProtocol::Sctp => "sctp",
        }
    }

    /// Returns its number (`IPPROTO_*`).
    pub fn number(self) -> u8 {
        let number = match self {
            TransportProtocol::Tcp => libc::IPPROTO_TCP,
            TransportProtocol::Udp => libc::IPPROTO_UDP,
            TransportProtocol::Sctp => libc::IPPROTO_SCTP,
        };
        number as u8
    }

    /// Returns true if a client's packets continue a flow whose translation is outdated, because it needs no new connection.
    pub(super) fn has_stale_flows(self) -> bool {
        self != TransportProtocol::Tcp
    }
}

impl<'de> Deserialize<'de> for TransportProtocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(TransportProtocol::Tcp);
        }
        let known = Self::ALL.into_iter().find(|protocol| protocol.as_str().eq_ignore_ascii_case(&text));
        known.ok_or_else(|| de::Error::unknown_variant(&text, &["tcp", "udp", "sctp"]))
    }
}

/// Reads a host IP. An empty text is none, and an IPv4-mapped IPv6 address is the IPv4 address.
fn host_ip<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let ip: IpAddr =
        text.parse().map_err(|_| de::Error::custom(format!("hostIP: invalid IP address {text:?}")))?;
    Ok(Some(match ip {
        IpAddr::V6(v6) if v6 != Ipv6Addr::UNSPECIFIED => v6.to_canonical(),
        ip => ip,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_runtimes() {
        let rows = [
            (r#"{"hostPort":8080,"containerPort":80}"#, Ok("8080/tcp")),
            (r#"{"hostPort":53,"containerPort":53,"protocol":"UDP","hostIP":""}"#, Ok("53/udp")),
            (r#"{"hostPort":1,"containerPort":2,"protocol":"sctp","hostIP":"::"}"#, Ok("[::]:1/sctp")),
            (r#"{"hostPort":1,"containerPort":2,"protocol":"","hostIP":"10.0.0.1"}"#, Ok("10.0.0.1:1/tcp")),
            (r#"{"hostPort":1,"containerPort":2,"hostIP":"::ffff:10.0.0.1"}"#, Ok("10.0.0.1:1/tcp")),
            (r#"{"hostPort":1,"containerPort":2,"hostIP":null,"more":1}"#, Ok("1/tcp")),
            (
                r#"{"HostPort":53,"ContainerPort":53,"Protocol":"udp","HostIP":"10.0.0.1"}"#,
                Ok("10.0.0.1:53/udp"),
            ),
            (r#"{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":""}"#, Ok("8080/tcp")),
            (r#"{"hostPort":0,"containerPort":2}"#, Err("nonzero")),
            (r#"{"hostPort":65536,"containerPort":2}"#, Err("65536")),
            (r#"{"containerPort":2}"#, Err("hostPort")),
            (r#"{"hostPort":1}"#, Err("containerPort")),
            (r#"{"hostPort":1,"containerPort":2,"protocol":"icmp"}"#, Err("icmp")),
            (r#"{"hostPort":1,"containerPort":2,"hostIP":"node"}"#, Err("\"node\"")),
        ];
        for (json, expected) in rows {
            match (serde_json::from_str::<PortMapping>(json), expected) {
                (Ok(mapping), Ok(text)) => {
                    assert_eq!(mapping.to_string(), text, "{json}");
                    let again = serde_json::to_string(&mapping).expect("a mapping is JSON");
                    assert_eq!(serde_json::from_str::<PortMapping>(&again).ok(), Some(mapping), "{again}");
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{json}: {error}"),
                (result, _) => panic!("{json}: {result:?}"),
            }
        }
    }

    #[test]
    fn families_and_single_addresses() {
        let mapping = |ip: Option<&str>| PortMapping {
            host_port: NonZeroU16::MIN,
            container_port: NonZeroU16::MIN,
            protocol: TransportProtocol::Tcp,
            host_ip: ip.map(|ip| ip.parse().expect("an address")),
        };
        let rows = [
            (None, [true, true], false),
            (Some("0.0.0.0"), [true, false], false),
            (Some("::"), [false, true], false),
            (Some("127.0.0.1"), [true, false], true),
            (Some("10.0.0.1"), [true, false], true),
            (Some("::1"), [false, true], true),
        ];
        for (ip, families, is_single) in rows {
            let mapping = mapping(ip);
            assert_eq!(Family::ALL.map(|family| mapping.has_family(family)), families, "{ip:?}");
            assert_eq!(mapping.single_host_ip().is_some(), is_single, "{ip:?}");
        }
    }
}
