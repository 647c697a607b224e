//! Deletes what is remembered of clients' endpoints that serve no more.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use portcullis_netlink::Result;
use portcullis_netlink::nf_tables::{Element, ElementData, Key, TableFamily, Transaction, read_elements};
use portcullis_netlink::socket::Socket;

use super::family_table::{FamilyTable, GRACE};
use super::names::{AFFINITY, NODE_PORT_AFFINITY, TABLE};

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
        for set in [AFFINITY, NODE_PORT_AFFINITY] {
            let gone: HashMap<&Key, HashSet<&Key>> = self
                .forgotten
                .keys()
                .filter(|(of, ..)| *of == set)
                .fold(HashMap::new(), |mut all, (_, front, e)| {
                    all.entry(front).or_default().insert(e);
                    all
                });
            if !gone.is_empty() {
                self.delete_where(socket, set, |front, endpoint| {
                    gone.get(front).is_some_and(|endpoints| endpoints.contains(endpoint))
                })?;
            }
        }
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
    pub(super) fn forget_all_but(
        &mut self,
        socket: &mut Socket,
        valid: &HashSet<(&'static str, Key, Key)>,
    ) -> Result<()> {
        for set in [AFFINITY, NODE_PORT_AFFINITY] {
            self.delete_where(socket, set, |front, endpoint| {
                !valid.contains(&(set, front.clone(), endpoint.clone()))
            })?;
        }
        Ok(())
    }

    /// `is_gone` is asked with the address or node port, and the endpoint.
    fn delete_where(
        &self,
        socket: &mut Socket,
        set: &'static str,
        is_gone: impl Fn(&Key, &Key) -> bool,
    ) -> Result<()> {
        let Some(spec) = self.table.desired().sets.get(set).map(|set| &set.spec) else { return Ok(()) };
        let family: TableFamily = self.table.desired().family;
        let client = self.settings().address().length();
        let elements = read_elements(socket, family, TABLE, set, spec)?;
        let stale: Vec<(&Key, &Element)> = elements
            .iter()
            .filter(|(key, element)| {
                let front = Key::new().part(&key.bytes()[client.min(key.bytes().len())..]);
                matches!(&element.data, Some(ElementData::Value(endpoint)) if is_gone(&front, endpoint))
            })
            .collect();
        // One by one gone meanwhile by itself would fail all, so each chunk is small and what is gone is no failure.
        for one in stale {
            let mut transaction = Transaction::new(ACTION, family, TABLE)?;
            transaction.delete_elements(set, spec, [one])?;
            match transaction.commit(socket) {
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                done => done?,
            }
        }
        Ok(())
    }
}
