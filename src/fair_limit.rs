//! Limit of what is reported about objects of the cluster, such as metric series.
//!
//! Tenants choose the number of their objects, and each report costs memory here and elsewhere. Below the limit nothing is
//! omitted. Above it, namespaces share the limit fairly: those with few items keep all, and only those with many lose some,
//! the last ones in order.

use std::collections::BTreeMap;

/// Items within the limit, and the number of the rest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Limited<T> {
    pub(crate) items: Vec<T>,
    pub(crate) omitted: usize,
}

/// Returns up to `limit` items. If some are omitted, the others are sorted by `key`.
pub(crate) fn limit<T, K: Ord>(
    items: impl IntoIterator<Item = T>,
    limit: usize,
    namespace: impl Fn(&T) -> String,
    key: impl Fn(&T) -> K,
) -> Limited<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    let all = items.len();
    if all <= limit {
        return Limited { items, omitted: 0 };
    }
    items.sort_by_cached_key(key);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    items.iter().for_each(|item| *counts.entry(namespace(item)).or_default() += 1);
    let share = fair_share(counts.values().copied(), limit);
    let mut kept: BTreeMap<String, usize> = BTreeMap::new();
    items.retain(|item| {
        let kept = kept.entry(namespace(item)).or_default();
        *kept += 1;
        *kept <= share
    });
    // More namespaces than the limit.
    items.truncate(limit);
    let omitted = all - items.len();
    Limited { items, omitted }
}

/// Returns the largest number of items per namespace with which all namespaces together have at most `limit`; at least 1.
fn fair_share(counts: impl Iterator<Item = usize>, limit: usize) -> usize {
    let mut counts: Vec<usize> = counts.collect();
    counts.sort_unstable();
    let mut left = limit;
    for (done, count) in counts.iter().enumerate() {
        let share = left / (counts.len() - done);
        if *count > share {
            return share.max(1);
        }
        left -= count;
    }
    limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_share_the_limit_fairly() {
        // Numbers of items in namespaces a, b, c; the limit; the numbers of items that are kept; the number omitted.
        let rows: [([usize; 3], usize, [usize; 3], usize); 6] = [
            ([1, 2, 3], 6, [1, 2, 3], 0),
            ([1, 2, 100], 10, [1, 2, 7], 93),
            ([100, 100, 100], 9, [3, 3, 3], 291),
            ([100, 0, 1], 10, [9, 0, 1], 91),
            ([2, 2, 2], 2, [1, 1, 0], 4),
            ([100, 3, 0], 7, [4, 3, 0], 96),
        ];
        for (counts, most, expected, omitted) in rows {
            let items = ["a", "b", "c"].into_iter().zip(counts);
            let items = items.flat_map(|(namespace, count)| (0..count).rev().map(move |n| (namespace, n)));
            let limited = limit(items, most, |item| item.0.to_owned(), |item| *item);
            let kept = ["a", "b", "c"].map(|name| limited.items.iter().filter(|item| item.0 == name).count());
            assert_eq!((kept, limited.omitted), (expected, omitted), "{counts:?} of {most}");
            if omitted > 0 {
                assert!(limited.items.is_sorted() && limited.items.iter().all(|item| item.1 < most));
            }
        }
    }
}
