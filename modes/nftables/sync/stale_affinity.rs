//! Deletion of the session-affinity entries of removed endpoints.

use std::collections::HashSet;
use std::time::Instant;

use portcullis_cluster::desired::Desired;
use portcullis_netlink::Result;
use portcullis_netlink::nf_tables::{Element, Key};

use super::kernel::NftablesKernel;
use crate::nftables::names::AFFINITY;
use crate::nftables::service_elements::ServiceElements;
use crate::nftables::service_table::{GRACE, ServiceTable, StaleAffinity};
use portcullis_cluster::{Bisect, BisectOrder};

/// The number of entries that one transaction deletes.
const BATCH: usize = 256;

/// Deletes the entries of removed endpoints whose deletion is due. Each endpoint is handled twice, immediately and after
/// [`GRACE`], because a packet in progress may add an entry again.
///
/// # Errors
/// The kernel rejects a request; the call can be repeated.
pub(super) fn delete_due(
    kernel: &mut dyn NftablesKernel,
    table: &mut ServiceTable,
    now: Instant,
) -> Result<()> {
    if !table.stale_affinity.values().any(|stale| stale.due <= now) {
        return Ok(());
    }
    delete_where(kernel, table, |key| table.stale_affinity.contains_key(key))?;
    table.stale_affinity.retain(|_, stale| {
        let StaleAffinity { due, is_last } = *stale;
        if due <= now {
            *stale = StaleAffinity { due: now + GRACE, is_last: true };
        }
        due > now || !is_last
    });
    Ok(())
}

/// Deletes the entries of all endpoints that `desired` does not have: at the start, when removed endpoints are unknown.
///
/// # Errors
/// The kernel rejects a request; the call can be repeated.
pub(super) fn delete_unknown(
    kernel: &mut dyn NftablesKernel,
    table: &ServiceTable,
    desired: &Desired,
) -> Result<()> {
    let with_affinity =
        desired.services().values().filter(|ports| ports.iter().any(|port| port.affinity.is_some()));
    let services = with_affinity.map(|ports| ServiceElements::new(ports, table.settings()));
    let valid: HashSet<Key> = services.flat_map(|service| service.affinity_keys).collect();
    delete_where(kernel, table, |key| !valid.contains(key))
}

/// Deletes the entries whose key without the client is stale.
fn delete_where(
    kernel: &mut dyn NftablesKernel,
    table: &ServiceTable,
    is_stale: impl Fn(&Key) -> bool,
) -> Result<()> {
    let desired = table.desired();
    let Some(spec) = desired.sets.get(AFFINITY).map(|set| &set.spec) else { return Ok(()) };
    let client = table.settings().address().length();
    let endpoint = |key: &Key| Key::new().part(key.bytes().get(client..).unwrap_or_default());
    let entries = kernel.read_elements(desired.family, AFFINITY, spec)?;
    let stale: Vec<(Key, Element)> =
        entries.into_iter().filter(|(key, _)| is_stale(&endpoint(key))).collect();
    for batch in stale.chunks(BATCH) {
        let mut bisect = Bisect::with_batch(BisectOrder::DepthFirst, batch.to_vec());
        while let Some(batch) = bisect.next_batch() {
            match kernel.delete_elements(desired.family, AFFINITY, spec, &batch) {
                // An entry has expired since it was read: nothing is left to do for that one.
                Err(error) if error.errno() == Some(libc::ENOENT) => _ = bisect.reject(batch, None),
                result => result?,
            }
        }
    }
    Ok(())
}
