//! Errors of the kernel as errors of a sync.

use portcullis_netlink as netlink;

use crate::error::SyncError;

/// Returns a function that wraps an error of the kernel with the action that failed, such as "list an ipset".
pub(super) fn cannot(action: &'static str) -> impl Fn(netlink::Error) -> SyncError {
    move |error| cannot_do(action.to_owned(), error)
}

/// Wraps an error of the kernel with the action that failed.
pub(super) fn cannot_do(action: String, error: netlink::Error) -> SyncError {
    SyncError::from_netlink(format_args!("cannot {action}"), &error)
}
