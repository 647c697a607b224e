//! Deletion of links.

use super::unspecified;
use crate::error::Result;
use crate::route::{Rtnetlink, message};

impl Rtnetlink {
    /// Deletes a link. Returns false if it did not exist.
    ///
    /// # Errors
    /// [`Error::Rejected`](crate::Error::Rejected): `EPERM` without CAP_NET_ADMIN, `EOPNOTSUPP` for hardware.
    pub fn delete_link(&mut self, index: u32) -> Result<bool> {
        const ACTION: &str = "delete a link";
        let mut link = unspecified();
        link.header.index = index;
        let mut request = message::batch(ACTION, libc::RTM_DELLINK, 0, &link)?;
        match self.socket.acknowledge(ACTION, &mut request) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
