//! The timeouts of IPVS connections, `struct ip_vs_timeout_user`.

use super::{IpVs, commands};
use crate::attribute::Malformed;
use crate::error::{During, Result};
use crate::generic;
use crate::message::Message;

const IPVS_CMD_ATTR_TIMEOUT_TCP: u16 = 4;
const IPVS_CMD_ATTR_TIMEOUT_TCP_FIN: u16 = 5;
const IPVS_CMD_ATTR_TIMEOUT_UDP: u16 = 6;

/// The timeouts of idle connections in seconds. The kernel's defaults are 900, 120 and 300.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Established TCP connections.
    pub tcp: u32,
    /// TCP connections after the first FIN.
    pub tcp_fin: u32,
    /// UDP.
    pub udp: u32,
}

impl Timeouts {
    pub(super) fn parse(message: &Message<'_>) -> Result<Self, Malformed> {
        let (_, attributes) = message.split::<{ generic::HEADER }>()?;
        let mut timeouts = Timeouts::default();
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                IPVS_CMD_ATTR_TIMEOUT_TCP => timeouts.tcp = attribute.u32()?,
                IPVS_CMD_ATTR_TIMEOUT_TCP_FIN => timeouts.tcp_fin = attribute.u32()?,
                IPVS_CMD_ATTR_TIMEOUT_UDP => timeouts.udp = attribute.u32()?,
                _ => {}
            }
        }
        Ok(timeouts)
    }
}

impl IpVs {
    /// Returns the timeouts of the namespace; 0 for a protocol that the kernel's IPVS was built without.
    ///
    /// # Errors
    /// [`crate::Error::Rejected`], usually without CAP_NET_ADMIN.
    pub fn timeouts(&mut self) -> Result<Timeouts> {
        const ACTION: &str = "read the timeouts of IPVS";
        let mut request = self.request(ACTION, commands::GET_CONFIG, |_| {})?;
        self.socket.query(ACTION, &mut request, |message| Timeouts::parse(&message).during(ACTION))
    }

    /// Sets the timeouts of the namespace; 0 keeps a timeout. They apply to a connection from its next change of state.
    ///
    /// # Errors
    /// [`crate::Error::Rejected`]: `EINVAL` for more seconds than the kernel counts (2³¹ ticks), `EPERM`
    /// without CAP_NET_ADMIN.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<()> {
        const ACTION: &str = "set the timeouts of IPVS";
        let mut request = self.request(ACTION, commands::SET_CONFIG, |message| {
            for (kind, seconds) in [
                (IPVS_CMD_ATTR_TIMEOUT_TCP, timeouts.tcp),
                (IPVS_CMD_ATTR_TIMEOUT_TCP_FIN, timeouts.tcp_fin),
                (IPVS_CMD_ATTR_TIMEOUT_UDP, timeouts.udp),
            ] {
                if seconds != 0 {
                    message.u32(kind, seconds);
                }
            }
        })?;
        self.socket.acknowledge(ACTION, &mut request)
    }
}
