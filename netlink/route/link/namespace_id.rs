//! The IDs of network namespaces in another one, by which links name the namespaces of their peers.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::{During, Result};
use crate::message::Batch;
use crate::route::Rtnetlink;

const ACTION: &str = "look up a network namespace's ID";

/// `NETNSA_NSID`.
const NSID: u16 = 1;
/// `NETNSA_FD`.
const FD: u16 = 3;

impl Rtnetlink {
    /// Returns the ID of a network namespace in that of the socket, as in [`LinkPeer::netns`]; `None` if it has none, because
    /// no link connects the two.
    ///
    /// [`LinkPeer::netns`]: crate::route::LinkPeer::netns
    ///
    /// # Errors
    /// [`Error::Rejected`](crate::Error::Rejected) if the file is not a network namespace.
    pub fn namespace_id(&mut self, namespace: BorrowedFd<'_>) -> Result<Option<i32>> {
        let mut batch = Batch::with_message(ACTION, libc::RTM_GETNSID, 0, |message| {
            // `struct rtgenmsg`: a family.
            message.raw(&[0]).u32(FD, namespace.as_raw_fd() as u32);
        })?;
        self.socket.query(ACTION, &mut batch, |message| {
            let (_, attributes) = message.split::<1>().during(ACTION)?;
            let mut id = None;
            for attribute in attributes {
                let attribute = attribute.during(ACTION)?;
                if attribute.kind == NSID {
                    id = Some(attribute.u32().during(ACTION)? as i32).filter(|id| *id >= 0);
                }
            }
            Ok(id)
        })
    }
}
