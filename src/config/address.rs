//! Parsers of IP addresses, CIDRs and listening addresses, with kube-proxy's rules.
//!
//! Upstream uses Go's older, "sloppy" parser: an octet of an IPv4 address may have leading zeros and is still
//! decimal. Existing configurations rely on it.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// Parses an IP address without zone (`fe80::1%eth0`); IPv4 octets may have leading zeros.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    without_leading_zeros(text).parse().ok()
}

/// Parses a CIDR and clears its host bits.
pub(super) fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    IpNet::new(parse_ip(address)?, length.parse().ok()?).ok().map(|net| net.trunc())
}

/// Parses `ADDRESS:PORT`, with brackets around an IPv6 address, or an address alone, with or without
/// brackets, which gets `default_port`.
pub(super) fn parse_socket_address(text: &str, default_port: u16) -> Option<SocketAddr> {
    if let Some(ip) = parse_ip(text) {
        return Some(SocketAddr::new(ip, default_port));
    }
    if let Some(ip) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return parse_ip(ip).map(|ip| SocketAddr::new(ip, default_port));
    }
    let (host, port) = text.rsplit_once(':')?;
    let ip = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => parse_ip(inside)?,
        None => parse_ip(host).filter(IpAddr::is_ipv4)?,
    };
    let port: u16 = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse().ok())??;
    (port != 0).then(|| SocketAddr::new(ip, port))
}

fn without_leading_zeros(text: &str) -> Cow<'_, str> {
    let padded = |octet: &str| octet.len() > 1 && octet.starts_with('0');
    if text.contains(':') || !text.split('.').any(padded) {
        return Cow::Borrowed(text);
    }
    let octets = text.split('.').map(|octet| match octet.trim_start_matches('0') {
        "" if !octet.is_empty() => "0",
        trimmed => trimmed,
    });
    Cow::Owned(octets.collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let rows = [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.000.0.01", Some("10.0.0.1")),
            ("::1", Some("::1")),
            ("fe80::1%eth0", None),
            ("10.0.0", None),
            ("10..0.1", None),
            ("00256.0.0.1", None),
            ("host", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_ip(text).map(|ip| ip.to_string()).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn networks() {
        let rows = [
            ("10.1.2.3/16", Some("10.1.0.0/16")),
            ("010.1.2.3/8", Some("10.0.0.0/8")),
            ("fd00::5/64", Some("fd00::/64")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("10.0.0.0", None),
            ("10.0.0.0/33", None),
            ("10.0.0.0/+8", None),
            ("10.0.0.0/", None),
            ("::/129", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_cidr(text).map(|net| net.to_string()).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn listening_addresses() {
        let rows = [
            ("0.0.0.0:10256", Some("0.0.0.0:10256")),
            ("127.0.0.1", Some("127.0.0.1:99")),
            ("::1", Some("[::1]:99")),
            ("[::1]", Some("[::1]:99")),
            ("[::]:10249", Some("[::]:10249")),
            ("[127.0.0.1]:80", Some("127.0.0.1:80")),
            (":10256", None),
            ("localhost:10256", None),
            ("127.0.0.1:0", None),
            ("127.0.0.1:65536", None),
            ("127.0.0.1:+80", None),
            ("127.0.0.1:", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let parsed = parse_socket_address(text, 99).map(|address| address.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text:?}");
        }
    }
}
