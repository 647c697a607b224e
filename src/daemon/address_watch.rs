//! Tells the loop when this machine's addresses change.

use std::time::Duration;

use portcullis_modes::ipvs::LINK;
use portcullis_netlink::Result;
use portcullis_netlink::route::{AddressChange, AddressChanges, Interfaces};
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
    let mut changes = AddressChanges::open()?;
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
    fn leave_out_of(&mut self, changes: &AddressChanges) -> Result<()> {
        let index = Interfaces::open()?.link_index(LINK)?;
        if let Some(new) = index.filter(|_| index != self.0) {
            changes.leave_out(new)?;
        }
        self.0 = index;
        Ok(())
    }

    /// Reads a burst to its end. Says whether there was more in it than addresses of this link.
    fn has_company(&self, changes: &mut AddressChanges) -> bool {
        let mut others = false;
        loop {
            match changes.try_next() {
                Ok(Some(AddressChange::Present { index, .. } | AddressChange::Gone { index, .. })) => {
                    others |= Some(index) != self.0;
                }
                Ok(Some(AddressChange::Missed)) => others = true,
                Ok(None) => return others,
                Err(error) => {
                    tracing::warn!(%error, "a change of this machine's addresses was lost");
                    others = true;
                }
            }
        }
    }
}
