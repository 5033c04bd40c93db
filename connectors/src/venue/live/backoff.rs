//! How long to wait before the next try: exponential with full jitter.
//!
//! <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>: a wait is drawn evenly between 0 and
//! `min(max, min · 2^tries)`, so that many clients that lost the same server do not come back together.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

/// Waits between tries.
#[derive(Debug)]
pub(crate) struct Backoff {
    builder: ExponentialBuilder,
    ceilings: ExponentialBackoff,
    ceiling: Duration,
    random: Pcg64,
}

impl Backoff {
    /// Doubling from `min` to `max`; the same seed draws the same waits.
    pub fn new(min: Duration, max: Duration, seed: u64) -> Self {
        let builder = ExponentialBuilder::new()
            .with_min_delay(min)
            .with_max_delay(max)
            .with_factor(2.0)
            .without_max_times();
        Self { builder, ceilings: builder.build(), ceiling: max, random: Pcg64::seed_from_u64(seed) }
    }

    /// The next wait.
    pub fn next(&mut self) -> Duration {
        self.ceiling = self.ceilings.next().unwrap_or(self.ceiling);
        self.ceiling.mul_f64(self.random.random::<f64>())
    }

    /// A connection has lasted for so long: if it was longer than the last wait could be, waits begin small again.
    pub fn lasted(&mut self, time: Duration) {
        if time > self.ceiling {
            self.ceilings = self.builder.build();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_their_bound_are_spread_below_it_and_begin_again() {
        let ms = Duration::from_millis;
        let ceiling = |i: u32| ms(100 * 2u64.pow(i.min(5))).min(ms(2000));
        let mut sums = [0.0; 8];
        for seed in 0..400 {
            let mut backoff = Backoff::new(ms(100), ms(2000), seed);
            for (i, sum) in sums.iter_mut().enumerate() {
                let wait = backoff.next();
                assert!(wait <= ceiling(i as u32), "try {i}: {wait:?}");
                *sum += wait.as_secs_f64() / ceiling(i as u32).as_secs_f64() / 400.0;
            }
            backoff.lasted(ms(1));
            assert_eq!(backoff.ceiling, ms(2000));
            backoff.lasted(ms(2001));
            assert!(backoff.next() <= ms(100));
        }
        assert!(sums.iter().all(|mean| (0.42..0.58).contains(mean)), "{sums:?}");
    }
}
