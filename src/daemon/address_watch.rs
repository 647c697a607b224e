//! Notifications of changes of this machine's addresses.

use std::time::Duration;

use portcullis_modes::ipvs::DUMMY_INTERFACE;
use portcullis_netlink::Result;
use portcullis_netlink::route::{AddressEvent, AddressMonitor, Rtnetlink};

use super::watch_thread;
use crate::control::{Mailbox, Notifier, Wake};

/// The time for which changes are collected before the notification, as they come in bursts.
const SETTLED: Duration = Duration::from_millis(100);

/// Returns a mailbox that is notified after addresses changed, except those of `kube-ipvs0`, which are Services'. If the
/// kernel does not report changes, that is logged.
pub(super) fn watch(wake: &Wake) -> Mailbox<()> {
    watch_thread::spawn(
        "addresses",
        "cannot subscribe to changes of addresses: changes of this machine's addresses will not be noticed",
        follow,
        wake,
    )
}

fn follow(notifier: &Notifier<()>) -> Result<()> {
    let mut changes = AddressMonitor::open()?;
    changes.set_nonblocking()?;
    let mut services = ServiceLink(None);
    services.leave_out_of(&changes)?;
    loop {
        changes.wait()?;
        std::thread::sleep(SETTLED);
        // The link may have been replaced.
        services.leave_out_of(&changes)?;
        if services.is_other_link_changed(&mut changes) && !notifier.notify(()) {
            return Ok(());
        }
    }
}

/// The index of `kube-ipvs0`, if it exists.
struct ServiceLink(Option<u32>);

impl ServiceLink {
    fn leave_out_of(&mut self, changes: &AddressMonitor) -> Result<()> {
        let index = Rtnetlink::open()?.link_index(DUMMY_INTERFACE)?;
        if let Some(new) = index.filter(|_| index != self.0) {
            changes.ignore_link(new)?;
        }
        self.0 = index;
        Ok(())
    }

    /// Reads all pending changes. Returns true if one of them is of another link.
    fn is_other_link_changed(&self, changes: &mut AddressMonitor) -> bool {
        let mut has_others = false;
        loop {
            match changes.try_next() {
                Ok(Some(AddressEvent::Updated { index, .. } | AddressEvent::Removed { index, .. })) => {
                    has_others |= Some(index) != self.0;
                }
                Ok(Some(AddressEvent::Overrun)) => has_others = true,
                Ok(None) => return has_others,
                Err(error) => {
                    tracing::warn!(%error, "lost a change of this machine's addresses");
                    has_others = true;
                }
            }
        }
    }
}
