//! How many samples a year has, found out from when prices come.
//!
//! A market with prices on weekends (Saturday, or Sunday before 17:00 UTC) never closes: a year of 365 days, all hours of them. One that was
//! silent over a weekend trades five days a week, 252 a year (Sunday evening belongs to Monday), with as many samples a day as its whole
//! days have had. Before that is known a year is taken to have all hours: volatilities are then too high, never too low, and positions
//! sized by them too small. Samples further apart than a day are counted by the calendar. The convention of a backtest's report.

use chrono::{DateTime, Datelike, Timelike, Weekday};
use serde::{Deserialize, Serialize};

const DAY_NS: i64 = 86_400_000_000_000;
/// Days of a market that never closes.
const ALL_DAYS: f64 = 365.0;
/// Days of a market that closes on weekends.
const TRADING_DAYS: f64 = 252.0;
/// First hour of Sunday (UTC) that is Monday's.
const SUNDAY_OPENS: u32 = 17;

/// What has been seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Year {
    /// Prices came on a weekend.
    weekends: bool,
    /// A weekend passed without.
    closes: bool,
    /// The day of the newest sample; `None` before the first.
    day: Option<i64>,
    /// Samples of that day.
    today: u32,
    /// It is not the first day, of which only a part may have been seen.
    whole: bool,
    /// Samples of whole days, and these days.
    points: u64,
    days: u32,
}

impl Year {
    /// A sample was taken, whose first price came at `ts`.
    pub fn sampled(&mut self, ts: i64) {
        let time = DateTime::from_timestamp_nanos(ts);
        let evening = time.weekday() == Weekday::Sun && time.hour() >= SUNDAY_OPENS;
        self.weekends |= matches!(time.weekday(), Weekday::Sat | Weekday::Sun) && !evening;
        let day = ts.div_euclid(DAY_NS) + i64::from(evening);
        if let Some(before) = self.day.filter(|before| *before != day) {
            // Days since 1970, a Thursday: a Saturday is 2 modulo 7.
            self.closes |= (before + 1..day).take(7).any(|day| day.rem_euclid(7) == 2);
            if self.whole {
                self.points += u64::from(self.today);
                self.days += 1;
            }
            (self.whole, self.today) = (true, 0);
        }
        self.day = Some(day);
        self.today += 1;
    }

    /// Samples a year, of samples `every` nanoseconds apart.
    pub fn periods(&self, every: i64) -> f64 {
        let all_hours = DAY_NS as f64 / every.max(1) as f64;
        if self.weekends || !self.closes || self.days == 0 || every > DAY_NS {
            ALL_DAYS * all_hours
        } else {
            TRADING_DAYS * self.points as f64 / f64::from(self.days)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000_000;

    /// 2024-01-01T00:00Z, a Monday.
    const MONDAY: i64 = 1_704_067_200_000_000_000;

    fn year(times: impl IntoIterator<Item = i64>) -> Year {
        let mut year = Year::default();
        times.into_iter().for_each(|ts| year.sampled(MONDAY + ts));
        year
    }

    #[test]
    fn weekends_make_a_year_of_365_days() {
        let daily = |days: &[i64]| year(days.iter().map(|day| day * DAY_NS)).periods(DAY_NS);
        assert_eq!(daily(&[0, 1, 2, 3, 4, 7, 8]), 252.0);
        assert_eq!(daily(&[0, 1, 2, 3, 4, 5]), 365.0);
        // Sunday evening and Monday are one day with two samples.
        let weeks = (0..50).flat_map(|week| {
            (0..6).map(move |day| (week * 7 + day - 1) * DAY_NS + 22 * HOUR * i64::from(day == 0))
        });
        let year = year(weeks.skip(1));
        assert!((year.periods(DAY_NS) - 252.0 * 6.0 / 5.0).abs() < 2.0, "{}", year.periods(DAY_NS));
    }

    #[test]
    fn hours_of_a_day_are_those_of_whole_days() {
        let session = |day: i64| (14..21).map(move |hour| day * DAY_NS + hour * HOUR);
        assert_eq!(year((0..5).flat_map(session)).periods(HOUR), 365.0 * 24.0);
        assert_eq!(year((0..5).chain(7..9).flat_map(session)).periods(HOUR), 252.0 * 7.0);
        assert_eq!(year((0..7).flat_map(session)).periods(HOUR), 365.0 * 24.0);
        assert!((year([0]).periods(7 * DAY_NS) - 365.0 / 7.0).abs() < 1e-9);
    }
}
