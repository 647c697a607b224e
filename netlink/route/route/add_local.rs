//! Local routes of an interface.

use std::net::IpAddr;

use netlink_packet_route::route::RouteProtocol;

use super::local;
use crate::error::{Error, Result};
use crate::message::CREATE;
use crate::route::{Rtnetlink, message};

/// `NLM_F_APPEND`: routes through other links stay. With `NLM_F_EXCL` the kernel would reject the route because of them.
const APPEND: u16 = libc::NLM_F_APPEND as u16;

impl Rtnetlink {
    /// Makes the kernel deliver packets to `address` locally that arrive on the link with this index: `ip route add
    /// local ADDRESS dev LINK`. Returns false if the route existed.
    ///
    /// # Errors
    /// [`Error::Rejected`]: `EPERM` without CAP_NET_ADMIN, `ENODEV` if there is no such link.
    pub fn add_local_route(&mut self, index: u32, address: IpAddr) -> Result<bool> {
        const ACTION: &str = "add a local route";
        let mut route = local(address, index);
        route.header.protocol = RouteProtocol::Static;
        let mut request = message::batch(ACTION, libc::RTM_NEWROUTE, CREATE | APPEND, &route)?;
        match self.socket.acknowledge(ACTION, &mut request) {
            Ok(()) => Ok(true),
            Err(Error::Rejected { errno: libc::EEXIST, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
