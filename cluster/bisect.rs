//! Bisection: finds the items that the kernel rejects in a batch that it rejected as a whole.
//!
//! ```text
//! batch ─► accepted: done
//!       └► rejected ─ several items ─► both halves are tried, or the item that the kernel named and the rest
//!                   └ one item ──────► found
//! ```
//! [`Bisect`] only holds the batches that are left to try: the caller writes them. With k rejected items among n, it needs at
//! most 1 + 2k⌈log₂ n⌉ attempts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The order in which batches are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BisectOrder {
    /// Both halves of a rejected batch next, so that items are tried in their order.
    #[default]
    DepthFirst,
    /// Both halves of a rejected batch last, so that large batches are accepted early.
    BreadthFirst,
}

/// The batches that are left to try.
#[derive(Debug)]
pub struct Bisect<T> {
    order: BisectOrder,
    batches: VecDeque<Vec<T>>,
}

impl<T> Bisect<T> {
    /// Returns a bisection without batches.
    pub fn new(order: BisectOrder) -> Self {
        Bisect { order, batches: VecDeque::new() }
    }

    /// Returns a bisection of one batch.
    pub fn with_batch(order: BisectOrder, batch: Vec<T>) -> Self {
        let mut bisect = Bisect::new(order);
        bisect.push(batch);
        bisect
    }

    /// Adds a batch that is tried next.
    pub fn push(&mut self, batch: Vec<T>) {
        if !batch.is_empty() {
            self.batches.push_front(batch);
        }
    }

    /// Adds a batch that is tried last.
    pub fn push_last(&mut self, batch: Vec<T>) {
        if !batch.is_empty() {
            self.batches.push_back(batch);
        }
    }

    /// Returns the items of all batches.
    pub fn items(&self) -> impl Iterator<Item = &T> {
        self.batches.iter().flatten()
    }

    /// Takes the batch to try next. Pass it to [`Bisect::reject`] if it is rejected.
    pub fn next_batch(&mut self) -> Option<Vec<T>> {
        self.batches.pop_front()
    }

    /// Divides a rejected batch. `named` is the index of the item that the kernel or its tool named: it is tried alone, then
    /// the rest. Returns the item if the batch has only one.
    pub fn reject(&mut self, mut batch: Vec<T>, named: Option<usize>) -> Option<T> {
        if batch.len() < 2 {
            return batch.pop();
        }
        let halves = match named.filter(|index| *index < batch.len()) {
            Some(index) => [vec![batch.remove(index)], batch],
            None => {
                let second = batch.split_off(batch.len() / 2);
                [batch, second]
            }
        };
        match self.order {
            BisectOrder::DepthFirst => {
                halves.into_iter().rev().for_each(|half| self.batches.push_front(half))
            }
            BisectOrder::BreadthFirst => self.batches.extend(halves),
        }
        None
    }

    /// Returns true if no batch is left.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Returns the number of items in all batches.
    pub fn len(&self) -> usize {
        self.batches.iter().map(Vec::len).sum()
    }

    /// Removes items from the batches.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&T) -> bool) {
        self.batches.iter_mut().for_each(|batch| batch.retain(&mut is_kept));
        self.batches.retain(|batch| !batch.is_empty());
    }

    /// Removes all batches.
    pub fn clear(&mut self) {
        self.batches.clear();
    }
}

impl<T: PartialEq> Bisect<T> {
    /// Returns true if a batch contains the item.
    pub fn contains(&self, item: &T) -> bool {
        self.batches.iter().any(|batch| batch.contains(item))
    }
}

/// A limit on the attempts and the time of one run. The first attempt is always granted, so that each run makes progress.
#[derive(Debug)]
pub struct Budget {
    attempts: usize,
    max_attempts: usize,
    deadline: Instant,
}

impl Budget {
    /// Returns a budget that starts `now`.
    pub fn new(max_attempts: usize, max_time: Duration, now: Instant) -> Self {
        Budget { attempts: 0, max_attempts, deadline: now + max_time }
    }

    /// Spends an attempt. Returns false if the budget is exhausted.
    pub fn spend(&mut self, now: Instant) -> bool {
        let is_granted = self.attempts == 0 || (self.attempts < self.max_attempts && now < self.deadline);
        self.attempts += usize::from(is_granted);
        is_granted
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    const ORDERS: [BisectOrder; 2] = [BisectOrder::DepthFirst, BisectOrder::BreadthFirst];

    /// A kernel that keeps accepted batches. It rejects some items, and some pairs of items that are accepted alone.
    #[derive(Default)]
    struct Kernel {
        rejected: BTreeSet<usize>,
        rejected_pairs: Vec<(usize, usize)>,
        /// It names the first rejected item of a batch.
        names_items: bool,
        accepted: BTreeSet<usize>,
        attempts: usize,
    }

    impl Kernel {
        fn accepts(&self, batch: &[usize]) -> bool {
            let mut all = self.accepted.clone();
            all.extend(batch);
            let has_pair = |(a, b): &(usize, usize)| a != b && all.contains(a) && all.contains(b);
            self.rejected.is_disjoint(&all) && !self.rejected_pairs.iter().any(has_pair)
        }

        /// Writes a batch. Fails with the item that the kernel names.
        fn write(&mut self, batch: &[usize]) -> Result<(), Option<usize>> {
            self.attempts += 1;
            if self.accepts(batch) {
                self.accepted.extend(batch);
                return Ok(());
            }
            Err(batch.iter().position(|item| self.names_items && self.rejected.contains(item)))
        }

        /// Returns the found items.
        fn bisect(&mut self, order: BisectOrder, items: usize) -> BTreeSet<usize> {
            let mut bisect = Bisect::with_batch(order, (0..items).collect());
            let mut found = BTreeSet::new();
            while let Some(batch) = bisect.next_batch() {
                if let Err(named) = self.write(&batch) {
                    found.extend(bisect.reject(batch, named));
                }
            }
            found
        }
    }

    fn max_attempts(items: usize, rejected: usize) -> usize {
        1 + 2 * rejected * items.next_power_of_two().ilog2() as usize
    }

    proptest! {
        #[test]
        fn exactly_the_rejected_items_are_found(items in 1..300usize, rejected in btree_set(0..300usize, 0..12)) {
            for order in ORDERS {
                let rejected: BTreeSet<usize> = rejected.iter().copied().filter(|item| *item < items).collect();
                let mut kernel = Kernel { rejected: rejected.clone(), ..Kernel::default() };
                prop_assert_eq!(&kernel.bisect(order, items), &rejected);
                prop_assert_eq!(kernel.accepted.len(), items - rejected.len());
                let max = max_attempts(items, rejected.len());
                prop_assert!(kernel.attempts <= max, "{} attempts instead of {max}", kernel.attempts);
            }
        }

        #[test]
        fn named_items_need_two_attempts_each(items in 1..300usize, rejected in btree_set(0..300usize, 0..12)) {
            let rejected: BTreeSet<usize> = rejected.iter().copied().filter(|item| *item < items).collect();
            let mut kernel = Kernel { rejected: rejected.clone(), names_items: true, ..Kernel::default() };
            prop_assert_eq!(&kernel.bisect(BisectOrder::DepthFirst, items), &rejected);
            prop_assert!(kernel.attempts <= 1 + 2 * rejected.len(), "{} attempts", kernel.attempts);
        }

        /// Of items that are rejected only in combination, as few are found as make the rest acceptable: none that the
        /// kernel would accept with the accepted ones.
        #[test]
        fn combinations_lose_no_acceptable_item(
            items in 1..100usize,
            rejected in btree_set(0..100usize, 0..4),
            pairs in proptest::collection::vec((0..100usize, 0..100usize), 0..6),
        ) {
            for order in ORDERS {
                let rejected = rejected.iter().copied().filter(|item| *item < items).collect();
                let mut kernel = Kernel { rejected, rejected_pairs: pairs.clone(), ..Kernel::default() };
                let found = kernel.bisect(order, items);
                prop_assert_eq!(kernel.accepted.len() + found.len(), items);
                prop_assert!(kernel.accepts(&[]), "the accepted items are acceptable together");
                for item in found {
                    prop_assert!(!kernel.accepts(&[item]), "{item} is acceptable");
                }
            }
        }
    }

    #[test]
    fn rejected_pair_loses_one_item() {
        for order in ORDERS {
            let mut kernel = Kernel { rejected_pairs: vec![(3, 60)], ..Kernel::default() };
            let found = kernel.bisect(order, 64);
            assert!(found == BTreeSet::from([3]) || found == BTreeSet::from([60]), "{found:?}");
        }
    }

    #[test]
    fn orders_differ_in_what_is_tried_next() {
        for (order, next) in ORDERS.into_iter().zip([vec![1, 2], vec![9]]) {
            let mut bisect = Bisect::with_batch(order, vec![9]);
            bisect.push(vec![1, 2, 3, 4]);
            let batch = bisect.next_batch().expect("two batches");
            assert_eq!(bisect.reject(batch, None), None);
            assert_eq!((bisect.len(), bisect.contains(&3)), (5, true));
            assert_eq!(bisect.next_batch(), Some(next), "{order:?}");
        }
    }

    #[test]
    fn removed_items_are_not_tried() {
        let mut bisect = Bisect::with_batch(BisectOrder::DepthFirst, vec![1]);
        bisect.push(vec![2, 3]);
        bisect.retain(|item| *item != 1 && *item != 3);
        assert_eq!((bisect.next_batch(), bisect.next_batch()), (Some(vec![2]), None));
        assert!(bisect.is_empty());
    }

    #[test]
    fn budget_limits_attempts_and_time_but_grants_the_first() {
        let start = Instant::now();
        let [second, later] = [1, 2].map(|seconds| start + Duration::from_secs(seconds));
        // The limits, and the times of attempts with their results.
        let rows = [
            (2, Duration::from_secs(9), vec![(start, true), (start, true), (start, false)]),
            (9, Duration::from_secs(1), vec![(start, true), (start, true), (second, false)]),
            (0, Duration::ZERO, vec![(later, true), (later, false)]),
        ];
        for (attempts, time, steps) in rows {
            let mut budget = Budget::new(attempts, time, start);
            for (now, is_granted) in steps {
                assert_eq!(budget.spend(now), is_granted, "{attempts} attempts, {time:?}");
            }
        }
    }
}
