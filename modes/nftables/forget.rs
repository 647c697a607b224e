//! Deletes what is remembered of clients' endpoints that serve no more.

use std::collections::HashSet;
use std::time::Instant;

use portcullis_netlink::Result;
use portcullis_netlink::nf_tables::{Key, Transaction, read_elements};
use portcullis_netlink::socket::Socket;

use super::family_table::{FamilyTable, GRACE};
use super::names::{AFFINITY, TABLE};

const ACTION: &str = "forget clients' endpoints";

impl FamilyTable {
    /// Deletes it. Packets that were under way may have written it again; so it is looked for once more after a while.
    ///
    /// # Errors
    /// The kernel's; the call can be repeated.
    pub(super) fn forget(&mut self, socket: &mut Socket, now: Instant) -> Result<()> {
        if !self.forgotten.values().any(|(due, _)| *due <= now) {
            return Ok(());
        }
        let forgotten = &self.forgotten;
        self.delete_where(socket, |endpoint| forgotten.contains_key(endpoint))?;
        // Each is looked for twice: at once, and when no packet can be under way any more.
        self.forgotten.retain(|_, (due, once)| {
            let (is_due, is_last) = (*due <= now, *once);
            if is_due {
                (*due, *once) = (now + GRACE, true);
            }
            !(is_due && is_last)
        });
        Ok(())
    }

    /// Deletes what is remembered of all endpoints but those that may serve: at the start, when nobody knows what
    /// happened before.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn forget_all_but(&mut self, socket: &mut Socket, valid: &HashSet<Key>) -> Result<()> {
        self.delete_where(socket, |endpoint| !valid.contains(endpoint))
    }

    /// `is_gone` is asked with what stands behind the client.
    fn delete_where(&self, socket: &mut Socket, is_gone: impl Fn(&Key) -> bool) -> Result<()> {
        let desired = self.table.desired();
        let Some(spec) = desired.sets.get(AFFINITY).map(|set| &set.spec) else { return Ok(()) };
        let client = self.settings().address().length();
        let elements = read_elements(socket, desired.family, TABLE, AFFINITY, spec)?;
        for one in &elements {
            let endpoint = Key::new().part(one.0.bytes().get(client..).unwrap_or_default());
            if !is_gone(&endpoint) {
                continue;
            }
            // Each by itself, as one that ran out meanwhile would keep the others.
            let mut transaction = Transaction::new(ACTION, desired.family, TABLE)?;
            transaction.delete_elements(AFFINITY, spec, [one])?;
            match transaction.commit(socket) {
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                done => done?,
            }
        }
        Ok(())
    }
}
