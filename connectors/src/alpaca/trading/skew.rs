//! How far this machine's clock is from the venue's, by the `Date` of its answers.
//!
//! `Date` has whole seconds, and was written between the request and its answer: only what cannot be explained by that counts.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

use crate::venue::live::fetch::skew_ms;

/// From here on it is told: milliseconds.
const OFF_MS: i64 = 1_000;

/// What is known of it.
#[derive(Debug, Default)]
pub struct Skew {
    /// The venue's clock less ours, milliseconds.
    ms: AtomicI64,
    off: AtomicBool,
}

impl Skew {
    /// Takes in the `Date` of an answer to a request of between `sent` and `received` (UTC nanoseconds of this machine).
    pub(super) fn observe(&self, date: &str, sent: i64, received: i64) {
        let (Some(at_first), Some(at_last)) = (skew_ms(date, sent), skew_ms(date, received)) else { return };
        // The least of the times in between that explains it.
        let ms = if at_last > 0 { at_last } else { at_first.min(0) };
        self.ms.store(ms, Relaxed);
        let off = ms.abs() > OFF_MS;
        if self.off.swap(off, Relaxed) != off {
            match self.words() {
                Some(words) => tracing::warn!("{words}"),
                None => tracing::info!("this machine's clock agrees with alpaca's again"),
            }
        }
    }

    /// The venue's clock less ours, milliseconds; up to a second counts as none.
    pub fn ms(&self) -> i64 {
        self.ms.load(Relaxed)
    }

    /// What is wrong and what to do, where it is more than a second.
    pub fn words(&self) -> Option<String> {
        let ms = self.ms();
        let which = if ms > 0 { "behind" } else { "ahead of" };
        (ms.abs() > OFF_MS).then(|| {
            format!(
                "this machine's clock is {:.1} s {which} alpaca's: an order's age is reckoned by it, so set it right (NTP)",
                ms.abs() as f64 / 1e3
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_way_of_an_answer_does_not_explain_counts() {
        let (date, at) = ("Tue, 15 Nov 1994 08:12:31 GMT", 784_887_151_000i64);
        for (sent, received, ms, words) in [
            (0, 200, 0, None),
            // Eight seconds on its way: its time is one of them.
            (-4_000, 4_000, 0, None),
            (-900, -100, 100, None),
            (3_500, 9_000, -2_500, Some("2.5 s ahead of alpaca's")),
            (-90_000, -89_000, 89_000, Some("89.0 s behind alpaca's")),
        ] {
            let skew = Skew::default();
            skew.observe(date, (at + sent) * 1_000_000, (at + received) * 1_000_000);
            assert_eq!(skew.ms(), ms, "{sent} {received}");
            let said = skew.words();
            assert!(
                words.map_or(said.is_none(), |w| said.as_ref().is_some_and(|s| s.contains(w))),
                "{said:?}"
            );
            skew.observe("never", 0, 0);
            assert_eq!(skew.ms(), ms);
        }
    }
}
