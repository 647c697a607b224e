//! Lookup of a link by name.

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
        let mut request = message::batch(ACTION, libc::RTM_GETLINK, 0, &named(ACTION, name)?)?;
        let link = self.socket.query(ACTION, &mut request, |message| Link::parse(&message).during(ACTION));
        match link {
            Ok(link) => Ok(link),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
