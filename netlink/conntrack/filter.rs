//! Filters for flows, and their form for the kernel (`CTA_FILTER`).

use std::net::{IpAddr, Ipv4Addr};

use super::attributes;
use super::flow::{Flow, Tuple, TupleParts};
use crate::attribute::Writer;
use crate::family::Family;

const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// `CTA_FILTER_F_*` of the kernel's nf_internals.h: the parts of the tuple that are compared.
const F_IP_SRC: u32 = 1 << 0;
const F_IP_DST: u32 = 1 << 1;
const F_PROTO_NUM: u32 = 1 << 3;
const F_PROTO_SRC_PORT: u32 = 1 << 4;
const F_PROTO_DST_PORT: u32 = 1 << 5;
/// A flag without a meaning in any kernel.
const F_IMPOSSIBLE: u32 = 1 << 31;

/// Conditions on one direction of a flow; `None` matches any value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TupleFilter {
    /// The source address.
    pub source: Option<IpAddr>,
    /// The destination address.
    pub destination: Option<IpAddr>,
    /// The source port, as in [`Tuple::source_port`].
    pub source_port: Option<u16>,
    /// The destination port, as in [`Tuple::destination_port`].
    pub destination_port: Option<u16>,
}

impl TupleFilter {
    fn matches(&self, tuple: &Tuple) -> bool {
        self.source.is_none_or(|source| source == tuple.source)
            && self.destination.is_none_or(|destination| destination == tuple.destination)
            && self.source_port.is_none_or(|port| port == tuple.source_port)
            && self.destination_port.is_none_or(|port| port == tuple.destination_port)
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the conditions that kernels apply correctly for this family and protocol.
    fn trusted(&self, family: Family, protocol: u8) -> Self {
        let ports = matches!(i32::from(protocol), libc::IPPROTO_TCP | libc::IPPROTO_UDP);
        let address = |address: &IpAddr| family == Family::V4 && address.is_ipv4();
        TupleFilter {
            source: self.source.filter(address),
            destination: self.destination.filter(address),
            source_port: self.source_port.filter(|_| ports),
            destination_port: self.destination_port.filter(|_| ports),
        }
    }

    fn flags(&self) -> u32 {
        [
            (self.source.is_some(), F_IP_SRC),
            (self.destination.is_some(), F_IP_DST),
            (self.source_port.is_some(), F_PROTO_SRC_PORT),
            (self.destination_port.is_some(), F_PROTO_DST_PORT),
        ]
        .into_iter()
        .filter_map(|(is_set, flag)| is_set.then_some(flag))
        .sum()
    }

    fn parts(&self) -> TupleParts {
        TupleParts {
            source: self.source,
            destination: self.destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
        }
    }
}

/// Matches the flows for which all conditions hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The family of the addresses.
    pub family: Family,
    /// The transport protocol (`IPPROTO_*`); `None` for any.
    pub protocol: Option<u8>,
    /// Conditions on the direction from the client.
    pub original: TupleFilter,
    /// Conditions on the reply direction.
    pub reply: TupleFilter,
    /// The zone in the original direction; `None` for any, `Some(0)` for the default zone alone.
    pub zone: Option<u16>,
}

impl Filter {
    /// Returns a filter for all flows of a family.
    pub fn new(family: Family) -> Self {
        let any = TupleFilter::default();
        Filter { family, protocol: None, original: any, reply: any, zone: None }
    }

    /// Adds a condition on the protocol.
    pub fn protocol(self, protocol: u8) -> Self {
        Filter { protocol: Some(protocol), ..self }
    }

    /// Returns true if the conditions hold for `flow`.
    pub fn matches(&self, flow: &Flow) -> bool {
        self.family == flow.family
            && self.protocol.is_none_or(|protocol| protocol == flow.protocol)
            && self.zone.is_none_or(|zone| zone == flow.zone)
            && self.original.matches(&flow.original)
            && self.reply.matches(&flow.reply)
    }

    /// Returns the conditions that a kernel applies correctly: they match all flows that the filter matches, and maybe more.
    /// `None` if only the family is left.
    pub(super) fn for_kernel(&self) -> Option<KernelFilter> {
        let protocol = self.protocol?;
        Some(KernelFilter {
            protocol,
            original: self.original.trusted(self.family, protocol),
            reply: self.reply.trusted(self.family, protocol),
        })
    }

    /// Returns the filter for the kernel if it matches exactly the same flows.
    pub(super) fn exactly_for_kernel(&self) -> Option<KernelFilter> {
        let narrowed = self.for_kernel()?;
        let exact = self.zone.is_none() && narrowed.original == self.original && narrowed.reply == self.reply;
        exact.then_some(narrowed)
    }
}

/// A filter that kernels with `CTA_FILTER` apply correctly.
#[derive(Clone, Copy, Debug)]
pub(super) struct KernelFilter {
    protocol: u8,
    original: TupleFilter,
    reply: TupleFilter,
}

impl KernelFilter {
    /// Writes the original tuple (always), the reply tuple (if it has conditions) and the filter.
    pub(super) fn write(&self, message: &mut Writer<'_>) {
        self.original.parts().write(message, attributes::TUPLE_ORIG, self.protocol);
        if !self.reply.is_empty() {
            self.reply.parts().write(message, attributes::TUPLE_REPLY, self.protocol);
        }
        message.nested(attributes::FILTER, |filter| {
            // Flags are in host order. The kernel requires the flag of the protocol number to compare ports.
            filter.u32(CTA_FILTER_ORIG_FLAGS, F_PROTO_NUM | self.original.flags());
            if !self.reply.is_empty() {
                filter.u32(CTA_FILTER_REPLY_FLAGS, F_PROTO_NUM | self.reply.flags());
            }
        });
    }
}

/// Writes a filter that no kernel can apply, for IPv4; see rule 1 of the module.
pub(super) fn write_impossible(message: &mut Writer<'_>) {
    // No flow has these addresses and ports, or the id 0.
    let nowhere = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let name = Tuple { source: nowhere, destination: nowhere, source_port: 0, destination_port: 0 };
    TupleParts::from(name).write(message, attributes::TUPLE_ORIG, libc::IPPROTO_UDP as u8);
    message.u32_be(attributes::ID, 0);
    message.nested(attributes::FILTER, |filter| {
        filter.u32(CTA_FILTER_ORIG_FLAGS, F_IMPOSSIBLE);
    });
}
