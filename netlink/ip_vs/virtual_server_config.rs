//! The configuration of a virtual server: scheduler, flags and timeout of `struct ip_vs_service_user`.

use crate::attribute::{Attribute, Malformed, Writer};
use crate::family::Family;

/// `IP_VS_SVC_F_PERSISTENT`: a client stays with its real server for [`VirtualServerConfig::timeout`].
pub const PERSISTENT: u32 = 0x1;
/// `IP_VS_SVC_F_SCHED1`: mh-fallback, sh-fallback.
pub const SCHED_1: u32 = 0x8;
/// `IP_VS_SVC_F_SCHED2`: mh-port, sh-port.
pub const SCHED_2: u32 = 0x10;
/// `IP_VS_SVC_F_SCHED3`.
pub const SCHED_3: u32 = 0x20;
/// `IP_VS_SVC_F_HASHED`: set by the kernel once the server is in its table. The kernel rejects a new server with this
/// flag. It is cleared on read, so that a read configuration equals the written one.
const HASHED: u32 = 0x2;

const IPVS_SVC_ATTR_AF: u16 = 1;
const IPVS_SVC_ATTR_SCHED_NAME: u16 = 6;
const IPVS_SVC_ATTR_FLAGS: u16 = 7;
const IPVS_SVC_ATTR_TIMEOUT: u16 = 8;
const IPVS_SVC_ATTR_NETMASK: u16 = 9;

/// The scheduler and persistence of a virtual server. A read configuration equals the written one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtualServerConfig {
    /// The scheduler's name: "rr", "wrr", "lc", "mh", …; 15 bytes at most. The kernel
    /// also accepts and lists "none": such a server rejects new connections.
    pub scheduler: Box<str>,
    /// [`PERSISTENT`], [`SCHED_1`] to [`SCHED_3`], and 0x4 (one packet).
    pub flags: u32,
    /// The time in seconds from a client's last connection to the end of its persistence; 0 without [`PERSISTENT`].
    pub timeout: u32,
    /// The part of the source address that persistence compares: for IPv4 a mask (`0xffff_ff00` is /24), for IPv6 a
    /// prefix length. The kernel requires it without persistence too.
    pub netmask: u32,
}

impl VirtualServerConfig {
    /// Returns the configuration for a scheduler, without persistence.
    pub fn new(scheduler: &str, family: Family) -> Self {
        let netmask = match family {
            Family::V4 => u32::MAX,
            Family::V6 => 128,
        };
        VirtualServerConfig { scheduler: scheduler.into(), flags: 0, timeout: 0, netmask }
    }

    /// Writes the configuration after the virtual server, which is of `family`.
    pub(super) fn write(&self, service: &mut Writer<'_>, family: Family) {
        // struct ip_vs_flags: the flags, then the mask of those to set.
        let mut flags = [0; 8];
        flags[..4].copy_from_slice(&(self.flags & !HASHED).to_ne_bytes());
        flags[4..].copy_from_slice(&(!HASHED).to_ne_bytes());
        service
            .text(IPVS_SVC_ATTR_SCHED_NAME, &self.scheduler)
            .bytes(IPVS_SVC_ATTR_FLAGS, &flags)
            .u32(IPVS_SVC_ATTR_TIMEOUT, self.timeout);
        match family {
            Family::V4 => service.u32_be(IPVS_SVC_ATTR_NETMASK, self.netmask),
            Family::V6 => service.u32(IPVS_SVC_ATTR_NETMASK, self.netmask),
        };
    }

    pub(super) fn parse(service: &Attribute<'_>) -> Result<Self, Malformed> {
        let (mut family, mut scheduler, mut flags, mut timeout, mut netmask) = (None, None, None, None, None);
        for attribute in service.nested() {
            let attribute = attribute?;
            match attribute.kind {
                IPVS_SVC_ATTR_AF => family = Family::from_number(attribute.u16()? as u8),
                IPVS_SVC_ATTR_SCHED_NAME => scheduler = Some(attribute.text()),
                IPVS_SVC_ATTR_FLAGS => {
                    flags = attribute.payload.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes));
                }
                IPVS_SVC_ATTR_TIMEOUT => timeout = Some(attribute.u32()?),
                IPVS_SVC_ATTR_NETMASK => netmask = Some(attribute),
                _ => {}
            }
        }
        let netmask = netmask.ok_or(Malformed::Missing("IPVS_SVC_ATTR_NETMASK"))?;
        Ok(VirtualServerConfig {
            scheduler: scheduler.ok_or(Malformed::Missing("IPVS_SVC_ATTR_SCHED_NAME"))?.into(),
            flags: flags.ok_or(Malformed::Missing("IPVS_SVC_ATTR_FLAGS"))? & !HASHED,
            timeout: timeout.ok_or(Malformed::Missing("IPVS_SVC_ATTR_TIMEOUT"))?,
            netmask: match family {
                Some(Family::V6) => netmask.u32()?,
                _ => netmask.u32_be()?,
            },
        })
    }
}
