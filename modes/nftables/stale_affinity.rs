//! Deletes what is remembered of clients' endpoints that serve no more.

use std::collections::HashSet;
use std::time::Instant;

use portcullis_netlink::Result;
use portcullis_netlink::nf_tables::{Element, Key, SetSpec, Transaction, read_elements};
use portcullis_netlink::socket::Socket;

use super::names::{AFFINITY, TABLE};
use super::service_table::{GRACE, ServiceTable};

const ACTION: &str = "forget clients' endpoints";

/// So many clients are forgotten in one transaction.
const AT_ONCE: usize = 256;

impl ServiceTable {
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
        let is_gone = |(key, _): &(&Key, &Element)| {
            is_gone(&Key::new().part(key.bytes().get(client..).unwrap_or_default()))
        };
        let gone: Vec<(&Key, &Element)> = elements.iter().filter(is_gone).collect();
        gone.chunks(AT_ONCE).try_for_each(|some| self.delete(socket, spec, some))
    }

    /// Deletes what is remembered of some clients. One that ran out meanwhile keeps the others, which are then found by
    /// halves.
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
