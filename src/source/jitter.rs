//! Random numbers for jitter.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Returns a random number from 0 up to 1; the standard library seeds each hasher randomly.
pub(super) fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    // The upper 53 bits are what a double holds exactly.
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_differ_and_stay_in_range() {
        let numbers: Vec<f64> = (0..100).map(|_| random()).collect();
        assert!(numbers.iter().all(|n| (0.0..1.0).contains(n)));
        assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]));
        let mean = numbers.iter().sum::<f64>() / 100.0;
        assert!((0.3..0.7).contains(&mean), "the mean is {mean}");
    }
}
