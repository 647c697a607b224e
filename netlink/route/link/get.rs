//! Lookup of a link by name.

use netlink_packet_route::link::{LinkAttribute, LinkExtentMask};

use super::{Link, named};
use crate::error::{During, Result};
use crate::route::{Rtnetlink, message};

impl Rtnetlink {
    /// Returns the index of the link with this name; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::BadName`](crate::Error::BadName) for names outside 1 to 15 bytes.
    pub fn link_index(&mut self, name: &str) -> Result<Option<u32>> {
        Ok(self.link(name)?.map(|link| link.index))
    }

    /// Returns the link with this name; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::BadName`](crate::Error::BadName) for names outside 1 to 15 bytes.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        const ACTION: &str = "look for a link";
        let mut link = named(ACTION, name)?;
        // The kernel would add up the statistics of all processors.
        link.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut request = message::batch(ACTION, libc::RTM_GETLINK, 0, &link)?;
        let link = self.socket.query(ACTION, &mut request, |message| Link::parse(&message).during(ACTION));
        match link {
            Ok(link) => Ok(link),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
