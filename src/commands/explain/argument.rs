//! Command-line arguments that name the ends of a connection (`--from`, `--to`, `--port`).

use std::num::NonZeroU16;

use portcullis_cluster::Protocol;
use portcullis_cluster::address::parse_ip;

use super::peer_argument::{self, Peer, PeerArgument};

/// A destination, as named on the command line; the port and protocol may be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DestinationArgument {
    pub(super) peer: PeerArgument,
    pub(super) port: Option<PortArgument>,
    pub(super) protocol: Option<Protocol>,
}

/// A destination whose name was resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) peer: Peer,
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

impl MalformedArgument {
    pub(super) fn new(text: &str, expected: &'static str) -> Self {
        MalformedArgument { text: text.to_owned(), expected }
    }
}

const PORT: &str = "a port: a number from 1 to 65535 or a name, and /tcp, /udp or /sctp where needed";
const URL: &str = "a URL with a host and a port, such as http://web.shop:8080/path";

/// Default ports of URLs.
const SCHEMES: [(&str, u16); 4] = [("http", 80), ("https", 443), ("ws", 80), ("wss", 443)];

impl DestinationArgument {
    /// Parses a destination: a URL, or a peer, `:PORT` and `/PROTOCOL`. A name without a namespace is in `namespace`.
    pub(super) fn parse(text: &str, namespace: &str) -> Result<DestinationArgument, MalformedArgument> {
        if let Some((scheme, rest)) = text.split_once("://") {
            return from_url(text, scheme, rest, namespace);
        }
        if let Some(address) = parse_ip(text) {
            let peer = PeerArgument::Peer(Peer::Address(address));
            return Ok(DestinationArgument { peer, port: None, protocol: None });
        }
        // The part after the last colon is a port, unless that colon is inside brackets.
        let colon = text.rfind(':').filter(|colon| text.rfind(']').is_none_or(|bracket| bracket < *colon));
        let Some(colon) = colon else {
            let peer = PeerArgument::parse(text, namespace)?;
            return Ok(DestinationArgument { peer, port: None, protocol: None });
        };
        let (port, protocol) = PortArgument::parse(&text[colon + 1..])?;
        let peer = PeerArgument::parse(&text[..colon], namespace)?;
        Ok(DestinationArgument { peer, port: Some(port), protocol })
    }
}

/// Parses a URL; its path is ignored.
fn from_url(
    text: &str,
    scheme: &str,
    rest: &str,
    namespace: &str,
) -> Result<DestinationArgument, MalformedArgument> {
    let wrong = || MalformedArgument::new(text, URL);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let colon = authority.rfind(':').filter(|colon| authority.rfind(']').is_none_or(|end| end < *colon));
    let (host, port) = match colon {
        Some(colon) => (&authority[..colon], authority[colon + 1..].parse().ok()),
        None => {
            let default = SCHEMES.iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name));
            (authority, default.map(|(_, port)| *port))
        }
    };
    let port = port.and_then(NonZeroU16::new).ok_or_else(wrong)?;
    let peer = peer_argument::from_host(host, namespace).ok_or_else(wrong)?;
    let protocol = Some(Protocol::Tcp);
    Ok(DestinationArgument { peer, port: Some(PortArgument::Number(port)), protocol })
}

impl PortArgument {
    /// Parses a port, and its protocol if there is one.
    pub(super) fn parse(text: &str) -> Result<(PortArgument, Option<Protocol>), MalformedArgument> {
        let wrong = || MalformedArgument::new(text, PORT);
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
    match PortArgument::parse(text) {
        Ok((PortArgument::Number(number), protocol)) => Ok((number.get(), protocol.unwrap_or_default())),
        _ => Err(MalformedArgument::new(text, "a port such as 80 or 53/udp")),
    }
}

fn parse_protocol(text: &str) -> Option<Protocol> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    all.into_iter().find(|protocol| protocol.as_str().eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::{Name, NamespacedName};

    use super::*;
    use crate::commands::explain::peer_argument::WorkloadKind;

    #[test]
    fn destinations_are_parsed() {
        use PeerArgument::{Dotted, OwnNode, Workload};
        let key = NamespacedName::new;
        let named = |namespace, name| PeerArgument::Peer(Peer::Named(key(namespace, name)));
        let pod = |namespace, name| PeerArgument::Peer(Peer::Pod(key(namespace, name)));
        let service = |namespace, name| PeerArgument::Peer(Peer::Service(key(namespace, name)));
        let node = |name| PeerArgument::Peer(Peer::Node(Name::new(name)));
        let address = |text: &str| PeerArgument::Peer(Peer::Address(text.parse().expect("an address")));
        let number = |n: u16| NonZeroU16::new(n).map(PortArgument::Number);
        let name = |n: &str| Some(PortArgument::Name(n.into()));
        let (tcp, udp) = (Some(Protocol::Tcp), Some(Protocol::Udp));
        for (text, peer, port, protocol) in [
            ("shop/web", named("shop", "web"), None, None),
            ("web", named("team", "web"), None, None),
            ("shop/web:80", named("shop", "web"), number(80), None),
            ("shop/web:http", named("shop", "web"), name("http"), None),
            ("shop/dns:53/UDP", named("shop", "dns"), number(53), udp),
            ("shop/tcp", named("shop", "tcp"), None, None),
            ("svc/web", service("team", "web"), None, None),
            ("service/web:http", service("team", "web"), name("http"), None),
            ("svc/shop/web:80", service("shop", "web"), number(80), None),
            ("pod/web-1", pod("team", "web-1"), None, None),
            ("pod/node/web", pod("node", "web"), None, None),
            ("deploy/web:80", Workload(WorkloadKind::Deployment, key("team", "web")), number(80), None),
            ("sts/shop/db", Workload(WorkloadKind::StatefulSet, key("shop", "db")), None, None),
            ("node/node-1:30080", node("node-1"), number(30080), None),
            ("node/node-1.example.com", node("node-1.example.com"), None, None),
            ("node:30080", OwnNode, number(30080), None),
            ("node:30053/udp", OwnNode, number(30053), udp),
            ("web.shop.svc", service("shop", "web"), None, None),
            ("web.shop.svc.:80", service("shop", "web"), number(80), None),
            ("web.shop.svc.cluster.local:80", service("shop", "web"), number(80), None),
            ("db-0.db.shop.svc.corp.example", pod("shop", "db-0"), None, None),
            ("10-244-1-7.shop.pod.cluster.local:53/udp", address("10.244.1.7"), number(53), udp),
            (
                "web.shop:80",
                Dotted { pod: key("team", "web.shop"), service: key("shop", "web") },
                number(80),
                None,
            ),
            (
                "http://web.shop:8080/path",
                Dotted { pod: key("team", "web.shop"), service: key("shop", "web") },
                number(8080),
                tcp,
            ),
            ("http://web/index.html", service("team", "web"), number(80), tcp),
            ("https://10.96.0.1", address("10.96.0.1"), number(443), tcp),
            ("https://user@web.shop.svc?q=1", service("shop", "web"), number(443), tcp),
            ("grpc://[fd00::1]:9000", address("fd00::1"), number(9000), tcp),
            ("10.0.0.1", address("10.0.0.1"), None, None),
            ("10.0.0.1:53/udp", address("10.0.0.1"), number(53), udp),
            ("fd00::1", address("fd00::1"), None, None),
            ("[fd00::1]", address("fd00::1"), None, None),
            ("[fd00::1]:53/udp", address("fd00::1"), number(53), udp),
        ] {
            assert_eq!(
                DestinationArgument::parse(text, "team"),
                Ok(DestinationArgument { peer, port, protocol }),
                "{text}"
            );
        }
        for text in [
            "",
            "/",
            "a/b/c",
            "svc/a/b/c",
            "node/a/b",
            "a/b:0",
            "a/b:65536",
            "a/b:80/icmp",
            "a/b:HTTP",
            "a b/c",
            "[fd00::1",
            "node/:80",
            "web..svc",
            "x.shop.pod",
            "http://",
            "http://:80",
            "http://web:0",
            "http://web:http",
            "grpc://web.shop",
        ] {
            assert!(DestinationArgument::parse(text, "team").is_err(), "{text}");
        }
    }
}
