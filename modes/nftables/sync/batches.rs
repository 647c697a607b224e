//! The division of updates into batches, so that large Services do not delay all others.

use portcullis_cluster::desired;

use super::programmed_services::ServiceUpdate;

/// The most entries of a batch, unless one Service alone has more ([`desired::MAX_ENTRIES`] limits it). The kernel needs about
/// 50 ms for as many.
pub(super) const MAX_BATCH_ENTRIES: usize = 20_000;

/// Divides updates into batches, those with the fewest entries first. Updates keep their order unless a batch would be too
/// large.
pub(super) fn divide(updates: Vec<ServiceUpdate>) -> Vec<Vec<ServiceUpdate>> {
    let mut sized: Vec<(usize, ServiceUpdate)> =
        updates.into_iter().map(|update| (entries(&update), update)).collect();
    if sized.iter().map(|(entries, _)| entries).sum::<usize>() > MAX_BATCH_ENTRIES {
        sized.sort_by_key(|(entries, _)| *entries);
    }
    let (mut batches, mut total) = (vec![Vec::new()], 0);
    for (entries, update) in sized {
        total += entries;
        if total > MAX_BATCH_ENTRIES && batches.last().is_some_and(|batch| !batch.is_empty()) {
            batches.push(Vec::new());
            total = entries;
        }
        batches.last_mut().expect("one batch at least").push(update);
    }
    batches
}

/// Returns the number of entries that an update removes and adds.
fn entries(update: &ServiceUpdate) -> usize {
    desired::entries(&update.before) + desired::entries(&update.after)
}
