//! What becomes of a packet, over all numbers that may be drawn for it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use portcullis_netlink::nf_tables::{Fate, Packet, PacketPath, Reject, Table, TracedHost};

/// The end of one way through a machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Dropped,
    RejectedByReset,
    RejectedAsUnreachable,
    /// It goes on to there, as it came or translated.
    Reaches {
        to: SocketAddr,
        translated: bool,
        masqueraded: bool,
        mark: u32,
    },
}

/// How often each end comes about, in a million.
pub type Outcome = BTreeMap<End, u32>;

/// A machine with one table.
pub struct Node<'a> {
    pub table: &'a Table,
    pub addresses: &'a [IpAddr],
}

impl Node<'_> {
    /// What becomes of a packet.
    pub fn outcome(&self, packet: &Packet) -> Outcome {
        let mut shares: BTreeMap<End, f64> = BTreeMap::new();
        for (journey, share) in self.journeys(packet) {
            *shares.entry(End::of(&journey)).or_default() += share;
        }
        shares.into_iter().map(|(end, share)| (end, (share * 1e6).round() as u32)).collect()
    }

    /// The journeys of a packet by all numbers that may be drawn, and how often each comes about.
    pub fn journeys(&self, packet: &Packet) -> Vec<(PacketPath, f64)> {
        let mut journeys = Vec::new();
        let mut draws: Vec<Draw> = Vec::new();
        loop {
            let journey = self.journey(packet, &mut draws);
            journeys.push((journey, draws.iter().map(|draw| 1.0 / f64::from(draw.below)).product()));
            // On to the next number of the last draw that has one.
            while draws.pop_if(|draw| draw.number + 1 >= draw.below).is_some() {}
            match draws.last_mut() {
                Some(draw) => draw.number += 1,
                None => return journeys,
            }
        }
    }

    /// Sends a packet with these numbers drawn, and 0 where none is given; tells what was drawn.
    fn journey(&self, packet: &Packet, draws: &mut Vec<Draw>) -> PacketPath {
        let is_local = |ip: IpAddr| match ip {
            IpAddr::V4(v4) if v4.is_loopback() => true,
            _ => self.addresses.contains(&ip),
        };
        let mut at = 0;
        let mut random = |below: u32| {
            if at == draws.len() {
                draws.push(Draw { number: 0, below });
            }
            at += 1;
            draws[at - 1].number
        };
        let machine = TracedHost { tables: &[self.table], is_local: &is_local };
        machine.trace(packet.clone(), &mut random)
    }
}

struct Draw {
    number: u32,
    below: u32,
}

impl End {
    pub fn of(journey: &PacketPath) -> End {
        let PacketPath { fate, packet, masqueraded, .. } = journey;
        match fate {
            Fate::Dropped => End::Dropped,
            Fate::Rejected(Reject::TcpReset) => End::RejectedByReset,
            Fate::Rejected(Reject::IcmpxPortUnreachable | Reject::IcmpPortUnreachable(_)) => {
                End::RejectedAsUnreachable
            }
            Fate::Accepted => End::Reaches {
                to: SocketAddr::new(packet.destination, packet.destination_port),
                translated: packet.status != 0,
                masqueraded: *masqueraded,
                mark: packet.mark,
            },
        }
    }

    /// Where it was led to, if it was.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        match self {
            End::Reaches { to, translated: true, .. } => Some(*to),
            _ => None,
        }
    }
}
