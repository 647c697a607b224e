//! A rate limit that permits bursts.

use std::time::{Duration, Instant};

/// A bucket of tokens that refills at a constant rate. It reads no clock: time is an argument.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenBucket {
    tokens: u32,
    refilled_at: Instant,
}

impl TokenBucket {
    /// Creates a full bucket.
    pub(crate) fn new(burst: u32, now: Instant) -> Self {
        TokenBucket { tokens: burst, refilled_at: now }
    }

    /// Takes a token, if there is one. The bucket holds `burst` tokens and gets one back after each `refill`.
    pub(crate) fn take(&mut self, burst: u32, refill: Duration, now: Instant) -> bool {
        self.refill(burst, refill, now);
        let left = self.tokens.checked_sub(1);
        self.tokens = left.unwrap_or(0);
        left.is_some()
    }

    /// Returns true if no token is missing.
    pub(crate) fn is_full(&mut self, burst: u32, refill: Duration, now: Instant) -> bool {
        self.refill(burst, refill, now);
        self.tokens >= burst
    }

    fn refill(&mut self, burst: u32, refill: Duration, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled_at).as_nanos() / refill.as_nanos().max(1);
        let missing = burst.saturating_sub(self.tokens);
        match u32::try_from(passed) {
            Ok(refills) if refills < missing => {
                self.tokens += refills;
                self.refilled_at += refill * refills;
            }
            _ => (self.tokens, self.refilled_at) = (self.tokens.max(burst), now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_permits_a_burst_and_then_the_refill_rate() {
        const REFILL: Duration = Duration::from_secs(2);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut bucket = TokenBucket::new(3, start);
        // Second, and whether a token is available.
        let rows = [
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (1, false),
            (2, true),
            (3, false),
            (4, true),
            (9, true),
            (9, true),
            (9, false),
        ];
        for (number, (second, is_available)) in rows.into_iter().enumerate() {
            assert_eq!(bucket.take(3, REFILL, at(second)), is_available, "row {number} at {second} s");
        }
        assert!(!bucket.is_full(3, REFILL, at(12)));
        assert!(bucket.is_full(3, REFILL, at(1000)));
        assert!(
            bucket.take(3, REFILL, start),
            "a clock that went back refills nothing and takes nothing away"
        );
    }
}
