//! Creation of links.

use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo};

use super::named;
use crate::error::{Error, Result};
use crate::message::{CREATE, EXCLUSIVE};
use crate::route::{Rtnetlink, message};

impl Rtnetlink {
    /// Creates a link of kind "dummy", which drops all packets, unless a link with this name exists, and returns its
    /// index. A new link stays down: its addresses are local nevertheless. An existing link is not changed, whatever its
    /// kind.
    ///
    /// # Errors
    /// [`Error::BadName`] for names outside 1 to 15 bytes; [`Error::Rejected`] with `EOPNOTSUPP` if the kernel lacks
    /// the module dummy.
    pub fn add_link_dummy(&mut self, name: &str) -> Result<u32> {
        const ACTION: &str = "add a dummy link";
        let mut link = named(ACTION, name)?;
        link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Dummy)]));
        let mut request = message::batch(ACTION, libc::RTM_NEWLINK, CREATE | EXCLUSIVE, &link)?;
        match self.socket.acknowledge(ACTION, &mut request) {
            Err(error) if error.errno() != Some(libc::EEXIST) => return Err(error),
            _ => {}
        }
        // Another process may have deleted it again.
        self.link_index(name)?.ok_or(Error::NoResponse { action: ACTION })
    }
}
