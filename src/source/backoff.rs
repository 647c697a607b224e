//! Exponential backoff with jitter.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Waits that double from try to try, each with jitter so that the nodes of a cluster do not come back to
/// their API server in step.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, cap: Duration) -> Self {
        Backoff { first, cap, next: first }
    }

    /// The next wait: between one and two times the doubled one, as client-go has it, and never above the cap.
    pub(super) fn wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(1.0 + random()).min(self.cap);
        self.next = (self.next * 2).min(self.cap);
        wait
    }

    /// Starts again from the first wait.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A random number from 0 up to 1; the standard library seeds each hasher's state anew.
pub(super) fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    // The upper 53 bits are what a double holds exactly.
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_start_again() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 10 * second);
        for (low, high) in [(1, 2), (2, 4), (4, 8), (8, 10), (10, 10), (10, 10)] {
            let wait = backoff.wait();
            assert!(low * second <= wait && wait <= high * second, "{wait:?} is not within {low}..{high} s");
        }
        backoff.reset();
        assert!(backoff.wait() < 2 * second);
    }

    #[test]
    fn random_numbers_differ_and_stay_in_range() {
        let numbers: Vec<f64> = (0..100).map(|_| random()).collect();
        assert!(numbers.iter().all(|n| (0.0..1.0).contains(n)));
        assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]));
        let mean = numbers.iter().sum::<f64>() / 100.0;
        assert!((0.3..0.7).contains(&mean), "the mean is {mean}");
    }
}
