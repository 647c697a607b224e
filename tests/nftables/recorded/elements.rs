//! Values by their types: keys, data, verdicts, blocks of addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_netlink::nf_tables::{DataType, Element, Key, Verdict};

use super::words::Words;

/// Values of these types with dots between them.
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

/// The number of a protocol.
pub fn protocol(word: &str) -> u8 {
    match word {
        "tcp" => libc::IPPROTO_TCP as u8,
        "udp" => libc::IPPROTO_UDP as u8,
        "sctp" => libc::IPPROTO_SCTP as u8,
        _ => panic!("{word} is no protocol"),
    }
}

/// A verdict, if one comes.
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

/// An element of a set or map of these types.
pub fn element(words: &mut Words<'_>, key_types: &[DataType], data: &[DataType]) -> (Key, Element) {
    let key = key(words, key_types);
    if words.take("comment") {
        words.text();
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
    (key, element)
}

/// An address or a block of them.
pub fn block(word: &str) -> IpNet {
    word.parse::<IpNet>()
        .or_else(|_| word.parse::<IpAddr>().map(IpNet::from))
        .unwrap_or_else(|_| panic!("{word} is no block"))
}
