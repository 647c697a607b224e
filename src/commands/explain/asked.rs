//! What was asked, as written on the command line.

use std::net::IpAddr;
use std::num::NonZeroU16;

use portcullis_cluster::address::parse_ip;
use portcullis_cluster::{Name, NamespacedName, Protocol};

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
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

/// A destination, as far as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) end: End,
    pub(super) port: Option<Port>,
    pub(super) protocol: Option<Protocol>,
}

/// A port, by number or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Number(NonZeroU16),
    Name(Box<str>),
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Port::Number(number) => write!(f, "{number}"),
            Port::Name(name) => f.write_str(name),
        }
    }
}

/// What a text should have been.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct Malformed {
    text: String,
    expected: &'static str,
}

const END: &str = "NAMESPACE/NAME, node/NAME or an address";
const PORT: &str = "a port: a number from 1 to 65535 or a name, and /tcp, /udp or /sctp where needed";

impl End {
    /// Reads an end without a port. A name without a namespace is in `default`.
    pub(super) fn read(text: &str) -> Result<End, Malformed> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Some(address) = parse_ip(bare) {
            return Ok(End::Address(address));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let wrong = || Malformed { text: text.to_owned(), expected: END };
        if parts.iter().any(|part| part.is_empty() || part.contains([':', '[', ']', ' '])) {
            return Err(wrong());
        }
        match parts[..] {
            ["node", name] => Ok(End::Node(Name::new(name))),
            ["pod", namespace, name] => Ok(End::Pod(NamespacedName::new(namespace, name))),
            ["service" | "svc", namespace, name] => Ok(End::Service(NamespacedName::new(namespace, name))),
            [namespace, name] => Ok(End::Named(NamespacedName::new(namespace, name))),
            [name] => Ok(End::Named(NamespacedName::new("default", name))),
            _ => Err(wrong()),
        }
    }
}

impl Destination {
    /// Reads a destination: an end, `:PORT` and `/PROTOCOL`.
    pub(super) fn read(text: &str) -> Result<Destination, Malformed> {
        if let Some(address) = parse_ip(text) {
            return Ok(Destination { end: End::Address(address), port: None, protocol: None });
        }
        // Whatever follows the last colon behind an address in brackets is a port.
        let colon = text.rfind(':').filter(|colon| text.rfind(']').is_none_or(|bracket| bracket < *colon));
        let Some(colon) = colon else {
            return Ok(Destination { end: End::read(text)?, port: None, protocol: None });
        };
        let (port, protocol) = Port::read(&text[colon + 1..])?;
        Ok(Destination { end: End::read(&text[..colon])?, port: Some(port), protocol })
    }
}

impl Port {
    /// Reads a port, and its protocol if that is there.
    pub(super) fn read(text: &str) -> Result<(Port, Option<Protocol>), Malformed> {
        let wrong = || Malformed { text: text.to_owned(), expected: PORT };
        let (port, protocol) = match text.split_once('/') {
            None => (text, None),
            Some((port, protocol)) => (port, Some(read_protocol(protocol).ok_or_else(wrong)?)),
        };
        if port.bytes().all(|b| b.is_ascii_digit()) {
            return Ok((Port::Number(port.parse().map_err(|_| wrong())?), protocol));
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !port.bytes().all(allowed) {
            return Err(wrong());
        }
        Ok((Port::Name(port.into()), protocol))
    }
}

/// A port's number and protocol, as in `53/udp`; TCP where none is given.
pub(crate) fn read_number(text: &str) -> Result<(u16, Protocol), Malformed> {
    let expected = "a port such as 80 or 53/udp";
    match Port::read(text) {
        Ok((Port::Number(number), protocol)) => Ok((number.get(), protocol.unwrap_or_default())),
        _ => Err(Malformed { text: text.to_owned(), expected }),
    }
}

fn read_protocol(text: &str) -> Option<Protocol> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    all.into_iter().find(|protocol| protocol.as_str().eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read() {
        let named = |namespace, name| End::Named(NamespacedName::new(namespace, name));
        let number = |n: u16| NonZeroU16::new(n).map(Port::Number);
        let name = |n: &str| Some(Port::Name(n.into()));
        let address = |text: &str| End::Address(text.parse().expect("an address"));
        let udp = Some(Protocol::Udp);
        for (text, end, port, protocol) in [
            ("shop/web", named("shop", "web"), None, None),
            ("web", named("default", "web"), None, None),
            ("shop/web:80", named("shop", "web"), number(80), None),
            ("shop/web:http", named("shop", "web"), name("http"), None),
            ("shop/dns:53/UDP", named("shop", "dns"), number(53), udp),
            ("shop/tcp", named("shop", "tcp"), None, None),
            ("svc/shop/web:80", End::Service(NamespacedName::new("shop", "web")), number(80), None),
            ("pod/node/web", End::Pod(NamespacedName::new("node", "web")), None, None),
            ("node/node-1:30080", End::Node(Name::new("node-1")), number(30080), None),
            ("10.0.0.1", address("10.0.0.1"), None, None),
            ("10.0.0.1:53/udp", address("10.0.0.1"), number(53), udp),
            ("fd00::1", address("fd00::1"), None, None),
            ("[fd00::1]", address("fd00::1"), None, None),
            ("[fd00::1]:53/udp", address("fd00::1"), number(53), udp),
        ] {
            assert_eq!(Destination::read(text), Ok(Destination { end, port, protocol }), "{text}");
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
            assert!(Destination::read(text).is_err(), "{text}");
        }
    }
}
