//! Listing of links.

use super::{Link, unspecified};
use crate::error::Result;
use crate::route::Rtnetlink;

impl Rtnetlink {
    /// Returns all links in the kernel's order (by index).
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) if links change faster than they can be read.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        self.dump("list the links", libc::RTM_GETLINK, &unspecified(), Link::parse)
    }
}
