//! Command-line arguments that name the ends of a connection (`--from`, `--to`, `--port`).

use std::net::IpAddr;
use std::num::NonZeroU16;

use portcullis_cluster::address::parse_ip;
use portcullis_cluster::{Name, NamespacedName, Protocol};

/// A peer of a connection, as named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PeerArgument {
    /// `NAMESPACE/NAME`: a pod or a Service.
    Named(NamespacedName),
    /// `pod/NAMESPACE/NAME`.
    Pod(NamespacedName),
    /// `service/NAMESPACE/NAME`.
    Service(NamespacedName),
    /// `node/NAME`.
    Node(Name),
    /// An address.
    Address(IpAddr),
}

/// A destination, as named on the command line; the port and protocol may be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DestinationArgument {
    pub(super) peer: PeerArgument,
    pub(super) port: Option<PortArgument>,
    pub(super) protocol: Option<Protocol>,
}

/// A port, by number or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PortArgument {
    Number(NonZeroU16),
    Name(Box<str>),
}

impl std::fmt::Display for PortArgument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PortArgument::Number(number) => write!(f, "{number}"),
            PortArgument::Name(name) => f.write_str(name),
        }
    }
}

/// An argument that has none of the expected forms.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct MalformedArgument {
    text: String,
    expected: &'static str,
}

const PEER: &str = "NAMESPACE/NAME, node/NAME or an address";
const PORT: &str = "a port: a number from 1 to 65535 or a name, and /tcp, /udp or /sctp where needed";

impl PeerArgument {
    /// Parses a peer without a port. A name without a namespace is in `default`.
    pub(super) fn parse(text: &str) -> Result<PeerArgument, MalformedArgument> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Some(address) = parse_ip(bare) {
            return Ok(PeerArgument::Address(address));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let wrong = || MalformedArgument { text: text.to_owned(), expected: PEER };
        if parts.iter().any(|part| part.is_empty() || part.contains([':', '[', ']', ' '])) {
            return Err(wrong());
        }
        match parts[..] {
            ["node", name] => Ok(PeerArgument::Node(Name::new(name))),
            ["pod", namespace, name] => Ok(PeerArgument::Pod(NamespacedName::new(namespace, name))),
            ["service" | "svc", namespace, name] => {
                Ok(PeerArgument::Service(NamespacedName::new(namespace, name)))
            }
            [namespace, name] => Ok(PeerArgument::Named(NamespacedName::new(namespace, name))),
            [name] => Ok(PeerArgument::Named(NamespacedName::new("default", name))),
            _ => Err(wrong()),
        }
    }
}

impl DestinationArgument {
    /// Parses a destination: a peer, `:PORT` and `/PROTOCOL`.
    pub(super) fn parse(text: &str) -> Result<DestinationArgument, MalformedArgument> {
        if let Some(address) = parse_ip(text) {
            return Ok(DestinationArgument {
                peer: PeerArgument::Address(address),
                port: None,
                protocol: None,
            });
        }
        // The part after the last colon is a port, unless that colon is inside brackets.
        let colon = text.rfind(':').filter(|colon| text.rfind(']').is_none_or(|bracket| bracket < *colon));
        let Some(colon) = colon else {
            return Ok(DestinationArgument { peer: PeerArgument::parse(text)?, port: None, protocol: None });
        };
        let (port, protocol) = PortArgument::parse(&text[colon + 1..])?;
        Ok(DestinationArgument { peer: PeerArgument::parse(&text[..colon])?, port: Some(port), protocol })
    }
}

impl PortArgument {
    /// Parses a port, and its protocol if there is one.
    pub(super) fn parse(text: &str) -> Result<(PortArgument, Option<Protocol>), MalformedArgument> {
        let wrong = || MalformedArgument { text: text.to_owned(), expected: PORT };
        let (port, protocol) = match text.split_once('/') {
            None => (text, None),
            Some((port, protocol)) => (port, Some(parse_protocol(protocol).ok_or_else(wrong)?)),
        };
        if port.bytes().all(|b| b.is_ascii_digit()) {
            return Ok((PortArgument::Number(port.parse().map_err(|_| wrong())?), protocol));
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !port.bytes().all(allowed) {
            return Err(wrong());
        }
        Ok((PortArgument::Name(port.into()), protocol))
    }
}

/// Parses a port number and protocol, as in `53/udp`; the protocol defaults to TCP.
pub(crate) fn parse_port_number(text: &str) -> Result<(u16, Protocol), MalformedArgument> {
    let expected = "a port such as 80 or 53/udp";
    match PortArgument::parse(text) {
        Ok((PortArgument::Number(number), protocol)) => Ok((number.get(), protocol.unwrap_or_default())),
        _ => Err(MalformedArgument { text: text.to_owned(), expected }),
    }
}

fn parse_protocol(text: &str) -> Option<Protocol> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    all.into_iter().find(|protocol| protocol.as_str().eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_parsed() {
        let named = |namespace, name| PeerArgument::Named(NamespacedName::new(namespace, name));
        let number = |n: u16| NonZeroU16::new(n).map(PortArgument::Number);
        let name = |n: &str| Some(PortArgument::Name(n.into()));
        let address = |text: &str| PeerArgument::Address(text.parse().expect("an address"));
        let udp = Some(Protocol::Udp);
        for (text, peer, port, protocol) in [
            ("shop/web", named("shop", "web"), None, None),
            ("web", named("default", "web"), None, None),
            ("shop/web:80", named("shop", "web"), number(80), None),
            ("shop/web:http", named("shop", "web"), name("http"), None),
            ("shop/dns:53/UDP", named("shop", "dns"), number(53), udp),
            ("shop/tcp", named("shop", "tcp"), None, None),
            ("svc/shop/web:80", PeerArgument::Service(NamespacedName::new("shop", "web")), number(80), None),
            ("pod/node/web", PeerArgument::Pod(NamespacedName::new("node", "web")), None, None),
            ("node/node-1:30080", PeerArgument::Node(Name::new("node-1")), number(30080), None),
            ("10.0.0.1", address("10.0.0.1"), None, None),
            ("10.0.0.1:53/udp", address("10.0.0.1"), number(53), udp),
            ("fd00::1", address("fd00::1"), None, None),
            ("[fd00::1]", address("fd00::1"), None, None),
            ("[fd00::1]:53/udp", address("fd00::1"), number(53), udp),
        ] {
            assert_eq!(
                DestinationArgument::parse(text),
                Ok(DestinationArgument { peer, port, protocol }),
                "{text}"
            );
        }
        for text in [
            "",
            "/",
            "a/b/c",
            "a/b:0",
            "a/b:65536",
            "a/b:80/icmp",
            "a/b:HTTP",
            "a b/c",
            "[fd00::1",
            "node/:80",
        ] {
            assert!(DestinationArgument::parse(text).is_err(), "{text}");
        }
    }
}
