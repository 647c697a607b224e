//! The outcomes of a packet over all random numbers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use portcullis_netlink::nf_tables::{Fate, Packet, PacketPath, Reject, Table, TracedHost};

/// The result of one path through a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Dropped,
    RejectedByReset,
    RejectedAsUnreachable,
    /// The packet goes to this destination.
    Forwarded {
        to: SocketAddr,
        is_translated: bool,
        is_masqueraded: bool,
        mark: u32,
    },
}

/// The probability of each outcome, in millionths.
pub type Outcomes = BTreeMap<Outcome, u32>;

/// A node with one table.
pub struct Node<'a> {
    pub table: &'a Table,
    pub addresses: &'a [IpAddr],
}

impl Node<'_> {
    /// Returns the outcomes of a packet.
    pub fn outcomes(&self, packet: &Packet) -> Outcomes {
        let mut sums: BTreeMap<Outcome, f64> = BTreeMap::new();
        for (path, probability) in self.paths(packet) {
            *sums.entry(Outcome::from_path(&path)).or_default() += probability;
        }
        // The small amount makes sums in different orders round alike.
        sums.into_iter().map(|(outcome, sum)| (outcome, (sum * 1e6 + 1e-6).round() as u32)).collect()
    }

    /// Returns the paths of a packet by all random numbers, with their probabilities.
    pub fn paths(&self, packet: &Packet) -> Vec<(PacketPath, f64)> {
        let is_local = |ip: IpAddr| match ip {
            IpAddr::V4(v4) if v4.is_loopback() => true,
            _ => self.addresses.contains(&ip),
        };
        TracedHost { tables: &[self.table], is_local: &is_local }.paths(packet.clone())
    }
}

impl Outcome {
    pub fn from_path(path: &PacketPath) -> Outcome {
        let PacketPath { fate, packet, masqueraded, .. } = path;
        match fate {
            Fate::Dropped => Outcome::Dropped,
            Fate::Rejected(Reject::TcpReset) => Outcome::RejectedByReset,
            Fate::Rejected(Reject::IcmpxPortUnreachable | Reject::IcmpPortUnreachable(_)) => {
                Outcome::RejectedAsUnreachable
            }
            Fate::Accepted => Outcome::Forwarded {
                to: SocketAddr::new(packet.destination, packet.destination_port),
                is_translated: packet.status != 0,
                is_masqueraded: *masqueraded,
                mark: packet.mark,
            },
        }
    }

    /// Returns the translated destination, if any.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        match self {
            Outcome::Forwarded { to, is_translated: true, .. } => Some(*to),
            _ => None,
        }
    }
}
