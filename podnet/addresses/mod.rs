//! Pod addresses (IPAM): allocation from the node's pod CIDRs, and the store of attachments.
//!
//! ```text
//! podCIDRs ─► PodRange ─► allocator (pure) ─┐
//! CNI ADD, DEL, GC ─► AddressStore ─────────┴─► STATE/{addresses,attachments}/…, under a lock
//! daemon ──────────► leaked attachments ──────┘
//! ```
//!
//! # Files
//! All are below the state directory, `/run/portcullis/pod-network`:
//!
//! | path | content |
//! | --- | --- |
//! | `attachments/CONTAINER@INTERFACE` | an attachment as JSON: its addresses, network namespace, host interface and host ports |
//! | `addresses/ADDRESS` | a reservation: names the attachment that holds the address |
//! | `last-allocated/RANGE` | the address allocated last, after which the next search starts |
//! | `adding`, `updating`, `removing` | a change in progress |
//! | `boot-id` | the boot of the kernel that wrote these files |
//! | `lock` | locked during each change |
//!
//! # Interruption
//! Each change is committed by one `rename`. A process that is killed leaves `adding` or `removing`, from which the next process
//! undoes the addition or finishes the removal. Reservations are hard links, which the file system creates only if no other
//! exists; so even without the lock no address has two holders.
//!
//! Nothing is synced to a disk. After a power cut no pod of this node runs any more, and files of an earlier boot are removed, also
//! where `/run` is not a tmpfs.

mod allocator;
mod attachment;
mod choice;
mod error;
mod exhaustion;
mod files;
mod leaks;
mod other_plugins;
mod pod_range;
mod recovery;
mod store;
mod store_lock;
mod usage;

pub use attachment::{Attachment, AttachmentKey, InvalidKey, NewAttachment};
pub use error::{Error, Result};
pub use leaks::{GRACE, Removal};
pub use pod_range::{InvalidRange, PodRange};
pub use store::{AddressStore, Listing, Reservation, UnreadableFile};
pub use usage::AddressUsage;

#[cfg(test)]
mod tests;
