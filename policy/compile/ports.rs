//! Ports that a rule matches.

use portcullis_cluster::Protocol;

use super::named_port::NamedPortId;

/// Destination ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RulePorts {
    /// All ports of all protocols, including protocols without ports.
    Any,
    /// Any of these.
    Listed {
        /// By number.
        numeric: NumericPorts,
        /// By name, sorted.
        named: Box<[NamedPortId]>,
    },
}

/// Port numbers of each protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumericPorts {
    /// TCP ports.
    pub tcp: ProtocolPorts,
    /// UDP ports.
    pub udp: ProtocolPorts,
    /// SCTP ports.
    pub sctp: ProtocolPorts,
}

/// Port numbers of one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtocolPorts {
    /// All ports.
    All,
    /// Ranges from the first to the last port inclusive; sorted, disjoint and not adjacent.
    Ranges(Box<[(u16, u16)]>),
}

impl Default for ProtocolPorts {
    fn default() -> Self {
        ProtocolPorts::Ranges(Box::default())
    }
}

impl RulePorts {
    /// Returns true if there are no ports.
    pub fn is_empty(&self) -> bool {
        match self {
            RulePorts::Any => false,
            RulePorts::Listed { numeric, named } => numeric.is_empty() && named.is_empty(),
        }
    }
}

impl NumericPorts {
    /// Returns the ports of a protocol.
    pub fn by_protocol(&self, protocol: Protocol) -> &ProtocolPorts {
        match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
            Protocol::Sctp => &self.sctp,
        }
    }

    pub(super) fn by_protocol_mut(&mut self, protocol: Protocol) -> &mut ProtocolPorts {
        match protocol {
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => &mut self.udp,
            Protocol::Sctp => &mut self.sctp,
        }
    }

    /// Returns true if there are no ports.
    pub fn is_empty(&self) -> bool {
        [&self.tcp, &self.udp, &self.sctp].into_iter().all(ProtocolPorts::is_empty)
    }
}

impl ProtocolPorts {
    /// Merges ranges in any order.
    pub(super) fn from_ranges(mut ranges: Vec<(u16, u16)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        ProtocolPorts::Ranges(merged.into())
    }

    /// Returns true if there are no ports.
    pub fn is_empty(&self) -> bool {
        matches!(self, ProtocolPorts::Ranges(ranges) if ranges.is_empty())
    }

    /// Returns true if a port is among them.
    pub fn contains(&self, port: u16) -> bool {
        match self {
            ProtocolPorts::All => true,
            ProtocolPorts::Ranges(ranges) => {
                let after = ranges.partition_point(|(first, _)| *first <= port);
                after > 0 && port <= ranges[after - 1].1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged() {
        for (given, expected) in [
            (vec![], vec![]),
            (vec![(80, 80)], vec![(80, 80)]),
            (vec![(81, 90), (80, 81)], vec![(80, 90)]),
            (vec![(80, 80), (81, 81), (83, 83)], vec![(80, 81), (83, 83)]),
            (vec![(1, 65535), (80, 80)], vec![(1, 65535)]),
            (vec![(65535, 65535), (65535, 65535)], vec![(65535, 65535)]),
        ] {
            let ports = ProtocolPorts::from_ranges(given.clone());
            assert_eq!(ports, ProtocolPorts::Ranges(expected.clone().into()), "{given:?}");
            for port in [1, 79, 80, 81, 82, 83, 90, 91, 65535] {
                let within = expected.iter().any(|(first, last)| (*first..=*last).contains(&port));
                assert_eq!(ports.contains(port), within, "{port} in {given:?}");
            }
        }
    }
}
