//! Parsing of elements: keys, data, verdicts, address blocks.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_netlink::nf_tables::{DataType, Element, Key, Verdict};

use super::span;
use super::words::Words;

/// Parses a concatenation of these types.
pub fn key(words: &mut Words<'_>, types: &[DataType]) -> Key {
    let mut key = Key::new();
    for (position, part) in types.iter().enumerate() {
        if position > 0 {
            words.expect(".");
        }
        key = match part {
            DataType::Ipv4Addr | DataType::Ipv6Addr => key.address(words.number()),
            DataType::InetProto => key.protocol(protocol(words.next())),
            DataType::InetService => key.port(words.number()),
            DataType::Mark | DataType::ClassId => key.number(words.number()),
            DataType::IfName | DataType::Verdict => words.unknown(),
        };
    }
    key
}

/// Returns the number of a protocol.
pub fn protocol(word: &str) -> u8 {
    match word {
        "tcp" => libc::IPPROTO_TCP as u8,
        "udp" => libc::IPPROTO_UDP as u8,
        "sctp" => libc::IPPROTO_SCTP as u8,
        _ => panic!("{word} is no protocol"),
    }
}

/// Parses a verdict, if one follows.
pub fn verdict(words: &mut Words<'_>) -> Option<Verdict> {
    let verdict = match words.peek()? {
        "drop" => Verdict::Drop,
        "accept" => Verdict::Accept,
        "return" => Verdict::Return,
        word @ ("goto" | "jump") => {
            words.next();
            let chain = words.next();
            return Some(if word == "goto" { Verdict::goto(chain) } else { Verdict::jump(chain) });
        }
        _ => return None,
    };
    words.next();
    Some(verdict)
}

/// Parses an element of a set or map of these types.
pub fn element(words: &mut Words<'_>, key_types: &[DataType], data: &[DataType]) -> (Key, Element) {
    let key = key(words, key_types);
    let mut timeout = None;
    loop {
        if words.take("comment") {
            words.text();
        } else if words.take("timeout") {
            timeout = Some(span::milliseconds(words.next()));
        } else if words.take("expires") {
            span::milliseconds(words.next());
        } else {
            break;
        }
    }
    let element = match data {
        [] => Element::new(),
        data => {
            words.expect(":");
            match data {
                [DataType::Verdict] => Element::verdict(verdict(words).expect("a verdict")),
                data => Element::value(self::key(words, data)),
            }
        }
    };
    (key, Element { timeout, ..element })
}

/// Parses an address or an address block.
pub fn block(word: &str) -> IpNet {
    word.parse::<IpNet>()
        .or_else(|_| word.parse::<IpAddr>().map(IpNet::from))
        .unwrap_or_else(|_| panic!("{word} is no block"))
}
