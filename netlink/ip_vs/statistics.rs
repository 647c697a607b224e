//! The counters of virtual servers, `struct ip_vs_stats_user`.

use crate::attribute::{Attribute, Malformed};

const IPVS_SVC_ATTR_STATS: u16 = 10;
const IPVS_SVC_ATTR_STATS64: u16 = 12;

const IPVS_STATS_ATTR_CONNS: u16 = 1;
const IPVS_STATS_ATTR_INPKTS: u16 = 2;
const IPVS_STATS_ATTR_OUTPKTS: u16 = 3;
const IPVS_STATS_ATTR_INBYTES: u16 = 4;
const IPVS_STATS_ATTR_OUTBYTES: u16 = 5;

/// The counters of a virtual server since its creation. In is from the client, out is to the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Connections that were scheduled to a real server.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes from clients, with IP headers.
    pub bytes_in: u64,
    /// Bytes to clients, with IP headers.
    pub bytes_out: u64,
}

impl Statistics {
    /// Parses the counters of a virtual server. Kernels before 4.0 have only the short form, in which connections and
    /// packets wrap at 32 bits.
    pub(super) fn of_service(service: &Attribute<'_>) -> Result<Self, Malformed> {
        let (mut long, mut short) = (None, None);
        for attribute in service.nested() {
            let attribute = attribute?;
            match attribute.kind {
                IPVS_SVC_ATTR_STATS64 => long = Some(attribute),
                IPVS_SVC_ATTR_STATS => short = Some(attribute),
                _ => {}
            }
        }
        let counters = long.or(short).ok_or(Malformed::Missing("IPVS_SVC_ATTR_STATS64"))?;
        let mut statistics = Statistics::default();
        for attribute in counters.nested() {
            let attribute = attribute?;
            let counter = match attribute.kind {
                IPVS_STATS_ATTR_CONNS => &mut statistics.connections,
                IPVS_STATS_ATTR_INPKTS => &mut statistics.packets_in,
                IPVS_STATS_ATTR_OUTPKTS => &mut statistics.packets_out,
                IPVS_STATS_ATTR_INBYTES => &mut statistics.bytes_in,
                IPVS_STATS_ATTR_OUTBYTES => &mut statistics.bytes_out,
                _ => continue,
            };
            *counter = match attribute.payload.len() {
                4 => attribute.u32()?.into(),
                _ => attribute.u64()?,
            };
        }
        Ok(statistics)
    }
}
