//! Creation of bridges.

use super::{MAX_NAME, MacAddress};
use crate::error::{Error, Result};
use crate::message::{Batch, CREATE, EXCLUSIVE};
use crate::route::Rtnetlink;

impl Rtnetlink {
    /// Adds a bridge without spanning tree, which is down, unless a link with this name exists. Returns false if one exists, which is
    /// not changed, whatever its kind. The bridge keeps the Ethernet address; without one it would change with its ports.
    ///
    /// # Errors
    /// [`Error::BadName`] for names outside 1 to 15 bytes; [`Error::Rejected`] with `EOPNOTSUPP` if the kernel lacks the module
    /// bridge.
    pub fn add_link_bridge(&mut self, name: &str, mac: MacAddress, mtu: u32) -> Result<bool> {
        const ACTION: &str = "add a bridge";
        Error::check_name(ACTION, name, MAX_NAME)?;
        let mut request = Batch::with_message(ACTION, libc::RTM_NEWLINK, CREATE | EXCLUSIVE, |message| {
            message.raw(&[0; super::HEADER]);
            message.text(libc::IFLA_IFNAME, name).bytes(libc::IFLA_ADDRESS, &mac.0);
            if mtu != 0 {
                message.u32(libc::IFLA_MTU, mtu);
            }
            message.nested(libc::IFLA_LINKINFO, |info| {
                info.text(libc::IFLA_INFO_KIND, "bridge");
            });
        })?;
        match self.socket.acknowledge(ACTION, &mut request) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
