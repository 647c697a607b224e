//! Generic netlink: families with dynamic message types, found by name.

use crate::attribute::Writer;
use crate::error::{During, Result};
use crate::message::Batch;
use crate::socket::Socket;

/// Bytes of the fixed header (`struct genlmsghdr`): command, version, two reserved.
pub const HEADER: usize = 4;

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_VERSION: u8 = 2;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

impl Writer<'_> {
    /// Writes the fixed header.
    pub fn generic_header(&mut self, command: u8, version: u8) -> &mut Self {
        self.raw(&[command, version, 0, 0])
    }
}

/// Returns the message type of a family; `None` if its module is not loaded. `socket` must be a
/// [`NetlinkProtocol::Generic`] one. This dumps all families, as a request for one by name makes the kernel load its
/// module.
///
/// [`NetlinkProtocol::Generic`]: crate::socket::NetlinkProtocol::Generic
///
/// # Errors
/// [`crate::Error::Malformed`] if the list does not parse.
pub fn loaded_family(socket: &mut Socket, name: &str) -> Result<Option<u16>> {
    const ACTION: &str = "list the generic netlink families";
    let mut request = Batch::with_message(ACTION, GENL_ID_CTRL, 0, |message| {
        message.generic_header(CTRL_CMD_GETFAMILY, CTRL_VERSION);
    })?;
    let mut found = None;
    socket.dump(ACTION, &mut request, |message| {
        let (_, attributes) = message.split::<HEADER>().during(ACTION)?;
        let (mut id, mut matches) = (None, false);
        for attribute in attributes {
            let attribute = attribute.during(ACTION)?;
            match attribute.kind {
                CTRL_ATTR_FAMILY_ID => id = Some(attribute.u16().during(ACTION)?),
                CTRL_ATTR_FAMILY_NAME => matches = attribute.text() == name,
                _ => {}
            }
        }
        if matches {
            found = id;
        }
        Ok(())
    })?;
    Ok(found)
}
