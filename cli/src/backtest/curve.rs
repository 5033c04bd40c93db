//! The account's curve over time, and its returns by period.
//!
//! A period's return is from the last equity in it by the last in the one before. The first period begins with the
//! equity at the start. Periods are of equal length and begin at multiples of it since 1970 (UTC): days, hours, minutes.
//! Days without a market count for nothing: where neither a weekend's equity nor its fills move, only weekdays count. A weekend is
//! Saturday and Sunday until 17:00 UTC: markets that open on Sunday evening (currencies, futures) trade five days a week, and
//! that evening belongs to Monday.

use chrono::{Datelike, Timelike, Weekday};
use tidemill_engine::duration::Span;

/// A second, in nanoseconds.
pub const SECOND: i64 = 1_000_000_000;
/// A day.
pub const DAY: i64 = 86_400 * SECOND;
/// A mean Gregorian year.
pub const YEAR: f64 = 365.2425 * DAY as f64;

/// The account at one time, in its currency.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// When, UTC nanoseconds.
    pub ts: i64,
    /// Cash and positions.
    pub equity: f64,
    /// Cash.
    pub cash: f64,
    /// Sum of absolute values of positions.
    pub gross: f64,
    /// Sum of values of positions.
    pub net: f64,
    /// Fees since the start.
    pub fees: f64,
}

/// Returns of one account by period.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Returns {
    /// Length of a period, nanoseconds.
    pub every: i64,
    /// End of each period.
    pub ends: Vec<i64>,
    /// Return of each.
    pub values: Vec<f64>,
    /// Gain of each, in the account's currency.
    pub gains: Vec<f64>,
    /// Periods in a year, as they are counted here.
    pub per_year: f64,
    /// Days in a year: 252 where there are no weekends, else 365.
    pub year_days: f64,
}

/// Fewest periods that a report is content with, before it takes shorter ones.
const ENOUGH: usize = 20;

/// What users may choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Periods {
    /// Length; default: a day where there are 20 of them, else an hour, else a minute.
    pub every: Option<Span>,
    /// Trading days in a year.
    pub year_days: Option<f64>,
}

/// Returns of `curve`, which began with `start` equity; `fills` are times of executions.
pub fn returns(curve: &[Point], fills: &[i64], start: f64, periods: Periods) -> Returns {
    let weekends = moves_at_weekends(curve, fills);
    if let Some(every) = periods.every.map(Span::ns).filter(|ns| *ns > 0) {
        return by(curve, start, every, weekends, periods.year_days);
    }
    let mut last = Returns::default();
    for every in [DAY, 3600 * SECOND, 60 * SECOND] {
        last = by(curve, start, every, weekends, periods.year_days);
        if last.values.len() >= ENOUGH {
            break;
        }
    }
    last
}

/// First hour of Sunday (UTC) that is Monday's: currencies open at 17:00 in New York, futures an hour later.
const SUNDAY_OPENS: u32 = 17;

/// Whether only markets that never close trade then.
fn is_weekend(ts: i64) -> bool {
    let time = chrono::DateTime::from_timestamp_nanos(ts);
    match time.weekday() {
        Weekday::Sat => true,
        Weekday::Sun => time.hour() < SUNDAY_OPENS,
        _ => false,
    }
}

fn is_sunday(ts: i64) -> bool {
    chrono::DateTime::from_timestamp_nanos(ts).weekday() == Weekday::Sun
}

fn moves_at_weekends(curve: &[Point], fills: &[i64]) -> bool {
    let moved = |w: &[Point]| w[0].equity != w[1].equity && is_weekend(w[1].ts) && is_weekend(w[0].ts);
    curve.windows(2).any(moved) || fills.iter().any(|ts| is_weekend(*ts))
}

fn by(curve: &[Point], start: f64, every: i64, weekends: bool, year_days: Option<f64>) -> Returns {
    let year_days = year_days.unwrap_or(if weekends { 365.0 } else { 252.0 });
    let mut returns = Returns { every, year_days, ..Returns::default() };
    let mut before = start;
    let mut days: Vec<i64> = Vec::new();
    let mut i = 0;
    while i < curve.len() {
        // A sample at a period's end is that period's.
        let period = (curve[i].ts - 1).div_euclid(every);
        let mut last = i;
        while last + 1 < curve.len() && (curve[last + 1].ts - 1).div_euclid(every) == period {
            last += 1;
        }
        let equity = curve[last].equity;
        i = last + 1;
        let end = (period + 1) * every;
        if !weekends && (is_weekend(end - 1) || (every >= DAY && is_sunday(end - 1))) {
            // What moves there belongs to the next weekday.
            continue;
        }
        // Ruin ends the series: a return on nothing is none.
        if before <= 0.0 || !equity.is_finite() {
            break;
        }
        let evening = !weekends && is_sunday(end - 1);
        let day = (end - 1).div_euclid(DAY) + i64::from(evening);
        if days.last() != Some(&day) {
            days.push(day);
        }
        returns.ends.push(end);
        returns.values.push(equity / before - 1.0);
        returns.gains.push(equity - before);
        before = equity;
    }
    let per_day = if every >= DAY {
        DAY as f64 / every as f64
    } else {
        returns.values.len() as f64 / days.len().max(1) as f64
    };
    returns.per_year = per_day * year_days;
    returns
}

/// Returns of prices over the same periods as `like`: the last price at or before each end by the one before. `None`
/// before the first price.
pub fn like(prices: &[(i64, f64)], like: &Returns) -> Vec<Option<f64>> {
    let mut next = 0;
    let mut last: Option<f64> = prices.first().map(|p| p.1);
    let mut seen = false;
    like.ends
        .iter()
        .map(|end| {
            let before = last.filter(|_| seen || prices.first().is_some_and(|p| p.0 <= *end));
            while next < prices.len() && prices[next].0 <= *end {
                last = Some(prices[next].1);
                seen = true;
                next += 1;
            }
            Some(last? / before? - 1.0).filter(|r| r.is_finite())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(ts: i64, equity: f64) -> Point {
        Point { ts, equity, ..Point::default() }
    }

    #[test]
    fn a_return_is_from_end_to_end_and_weekends_do_not_count() {
        // 2024-01-04 is a Thursday.
        let thursday = 1_704_326_400 * SECOND;
        let curve: Vec<Point> = [(0, 110.0), (1, 121.0), (2, 121.0), (3, 121.0), (4, 96.8)]
            .iter()
            .map(|(day, equity)| point(thursday + day * DAY + DAY / 2, *equity))
            .collect();
        let periods = Periods { every: Some(Span::from_ns(DAY)), year_days: None };
        let r = returns(&curve, &[], 100.0, periods);
        assert_eq!(r.values.len(), 3);
        for (got, want) in r.values.iter().zip([0.1, 0.1, -0.2]) {
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
        assert_eq!((r.per_year, r.year_days), (252.0, 252.0));
        let r = returns(&curve, &[thursday + 2 * DAY + 1], 100.0, periods);
        assert_eq!((r.values.len(), r.per_year), (5, 365.0));
    }

    #[test]
    fn short_histories_get_short_periods() {
        let start = 1_704_326_400 * SECOND;
        let curve: Vec<Point> = (1..=300).map(|m| point(start + m * 60 * SECOND, 100.0 + m as f64)).collect();
        let r = returns(&curve, &[], 100.0, Periods::default());
        assert_eq!((r.every, r.values.len()), (60 * SECOND, 300));
        assert_eq!(r.per_year, 300.0 * 252.0);
        assert!(returns(&[], &[], 100.0, Periods::default()).values.is_empty());
    }

    #[test]
    fn ruin_ends_the_series() {
        let curve = [point(DAY, 50.0), point(2 * DAY, -1.0), point(3 * DAY, 20.0)];
        let periods = Periods { every: Some(Span::from_ns(DAY)), year_days: Some(365.0) };
        assert_eq!(returns(&curve, &[1], 100.0, periods).values, [-0.5, -1.02]);
    }

    #[test]
    fn prices_follow_the_periods() {
        let r = Returns { ends: vec![10, 20, 30, 40], ..Returns::default() };
        let got = like(&[(12, 100.0), (18, 110.0), (35, 121.0)], &r);
        assert_eq!(got[0], None);
        let close = |i: usize, want: f64| assert!((got[i].unwrap() - want).abs() < 1e-12);
        close(1, 0.1);
        close(2, 0.0);
        close(3, 0.1);
    }
}
