//! Tells the loop when this machine's addresses change.

use std::time::Duration;

use portcullis_modes::ipvs::DUMMY_INTERFACE;
use portcullis_netlink::Result;
use portcullis_netlink::route::{AddressEvent, AddressMonitor, Rtnetlink};
use tokio::sync::mpsc;

use super::watch_thread;

/// How long changes are collected before the loop hears of them: they come in bursts.
const SETTLED: Duration = Duration::from_millis(100);

/// A channel that gets a word after addresses changed. Those of `kube-ipvs0` do not count: they are Services', and
/// as many as those. Where the kernel cannot be listened to, it stays silent, and that is logged.
pub(super) fn watch() -> mpsc::Receiver<()> {
    watch_thread::spawn("addresses", "changes of this machine's addresses go unnoticed", follow)
}

fn follow(sink: &mpsc::Sender<()>) -> Result<()> {
    let mut changes = AddressMonitor::open()?;
    changes.set_nonblocking()?;
    let mut services = ServiceLink(None);
    services.leave_out_of(&changes)?;
    loop {
        changes.wait()?;
        std::thread::sleep(SETTLED);
        // It may be another by now.
        services.leave_out_of(&changes)?;
        if services.has_company(&mut changes) && !watch_thread::notify(sink) {
            return Ok(());
        }
    }
}

/// The index of the link that bears the addresses of Services, where there is one.
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

    /// Reads a burst to its end. Says whether there was more in it than addresses of this link.
    fn has_company(&self, changes: &mut AddressMonitor) -> bool {
        let mut others = false;
        loop {
            match changes.try_next() {
                Ok(Some(AddressEvent::Updated { index, .. } | AddressEvent::Removed { index, .. })) => {
                    others |= Some(index) != self.0;
                }
                Ok(Some(AddressEvent::Overrun)) => others = true,
                Ok(None) => return others,
                Err(error) => {
                    tracing::warn!(%error, "a change of this machine's addresses was lost");
                    others = true;
                }
            }
        }
    }
}
