//! Deletion of the session-affinity entries of removed endpoints.

use std::collections::HashSet;
use std::time::Instant;

use portcullis_netlink::Result;
use portcullis_netlink::nf_tables::{Element, Key, SetSpec, Transaction, read_elements};
use portcullis_netlink::socket::Socket;

use super::names::{AFFINITY, TABLE};
use super::service_table::{GRACE, ServiceTable, StaleAffinity};

const ACTION: &str = "delete session-affinity entries";

/// The number of entries that one transaction deletes.
const BATCH: usize = 256;

impl ServiceTable {
    /// Deletes the entries of endpoints whose deletion is due. Each endpoint is handled twice, immediately and after
    /// [`GRACE`], because a packet in progress may add an entry again.
    ///
    /// # Errors
    /// The kernel's; the call can be repeated.
    pub(super) fn forget(&mut self, socket: &mut Socket, now: Instant) -> Result<()> {
        if !self.stale_affinity.values().any(|stale| stale.due <= now) {
            return Ok(());
        }
        let keys = &self.stale_affinity;
        self.delete_where(socket, |key| keys.contains_key(key))?;
        self.stale_affinity.retain(|_, stale| {
            let StaleAffinity { due, is_last } = *stale;
            if due <= now {
                *stale = StaleAffinity { due: now + GRACE, is_last: true };
            }
            due > now || !is_last
        });
        Ok(())
    }

    /// Deletes the entries of all endpoints except `valid` ones: at the start, when removed endpoints are unknown.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn forget_all_but(&mut self, socket: &mut Socket, valid: &HashSet<Key>) -> Result<()> {
        self.delete_where(socket, |endpoint| !valid.contains(endpoint))
    }

    /// Deletes entries whose key without the client is stale.
    fn delete_where(&self, socket: &mut Socket, is_stale: impl Fn(&Key) -> bool) -> Result<()> {
        let desired = self.table.desired();
        let Some(spec) = desired.sets.get(AFFINITY).map(|set| &set.spec) else { return Ok(()) };
        let client = self.settings().address().length();
        let elements = read_elements(socket, desired.family, TABLE, AFFINITY, spec)?;
        let is_stale = |(key, _): &(&Key, &Element)| {
            is_stale(&Key::new().part(key.bytes().get(client..).unwrap_or_default()))
        };
        let stale: Vec<(&Key, &Element)> = elements.iter().filter(is_stale).collect();
        stale.chunks(BATCH).try_for_each(|some| self.delete(socket, spec, some))
    }

    /// Deletes entries. The kernel rejects the batch if one of them has expired meanwhile, so the batch is bisected.
    fn delete(&self, socket: &mut Socket, spec: &SetSpec, some: &[(&Key, &Element)]) -> Result<()> {
        let mut transaction = Transaction::new(ACTION, self.table.desired().family, TABLE)?;
        transaction.delete_elements(AFFINITY, spec, some.iter().copied())?;
        match transaction.commit(socket) {
            Err(error) if error.errno() == Some(libc::ENOENT) => {
                if some.len() < 2 {
                    return Ok(());
                }
                let (first, second) = some.split_at(some.len() / 2);
                self.delete(socket, spec, first)?;
                self.delete(socket, spec, second)
            }
            done => done,
        }
    }
}
