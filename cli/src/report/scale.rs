//! From values to pixels, and where the ticks of an axis are.

use chrono::{DateTime, Datelike, NaiveDate};

/// A linear scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Smallest and largest value.
    pub domain: (f64, f64),
    /// Their pixels.
    pub pixels: (f64, f64),
}

impl Scale {
    /// Where `value` is.
    pub fn at(&self, value: f64) -> f64 {
        let width = self.domain.1 - self.domain.0;
        let part = if width == 0.0 { 0.5 } else { (value - self.domain.0) / width };
        self.pixels.0 + part * (self.pixels.1 - self.pixels.0)
    }
}

/// Smallest and largest of finite values; 0 to 1 where there is none.
pub fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low > high { (0.0, 1.0) } else { (low, high) }
}

/// Round values that cover `domain` in about `count` steps, and the decimals they need.
pub fn ticks(domain: (f64, f64), count: usize) -> (Vec<f64>, usize) {
    let (low, high) = domain;
    let width = if high > low { high - low } else { low.abs().max(1.0) * 0.1 };
    let raw = width / count.max(1) as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step =
        [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= raw * 0.999).unwrap_or(raw);
    let first = (low / step).floor();
    let last = (high / step).ceil().max(first + 1.0);
    // At most a few more than were asked for: the domain is covered, the step is no smaller than asked.
    let n = ((last - first).round() as usize).min(4 * count.max(1));
    let values = (0..=n).map(|i| (first + i as f64) * step).collect();
    let decimals = (0..=8).find(|d| {
        let scaled = step * 10f64.powi(*d);
        (scaled - scaled.round()).abs() < 1e-6 * scaled
    });
    (values, decimals.unwrap_or(8) as usize)
}

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Times at which a time axis is marked, each with its label.
pub fn time_ticks(domain: (i64, i64), count: usize) -> Vec<(i64, String)> {
    let (from, to) = domain;
    let raw = ((to - from).max(1) / count.max(1) as i64).max(1);
    if raw > 20 * DAY {
        return months(from, to, (raw as f64 / (30.4 * DAY as f64)).ceil() as i32);
    }
    let steps = [
        1,
        5,
        15,
        30,
        60,
        300,
        900,
        1800,
        3600,
        7200,
        10800,
        21600,
        43200,
        86400,
        2 * 86400,
        7 * 86400,
        14 * 86400,
    ];
    let step = steps.iter().map(|s| s * SECOND).find(|s| *s >= raw).unwrap_or(14 * DAY);
    let first = from.div_euclid(step) + i64::from(from.rem_euclid(step) != 0);
    let mut out = Vec::new();
    let mut day = None;
    for i in 0..=(4 * count as i64) {
        let t = (first + i).saturating_mul(step);
        if t > to {
            break;
        }
        let time = DateTime::from_timestamp_nanos(t);
        let form = if step >= DAY || day != Some(time.date_naive()) && t % DAY == 0 {
            "%b %-d"
        } else if step >= 60 * SECOND {
            "%H:%M"
        } else {
            "%H:%M:%S"
        };
        day = Some(time.date_naive());
        out.push((t, time.format(form).to_string()));
    }
    out
}

fn months(from: i64, to: i64, step: i32) -> Vec<(i64, String)> {
    let step = [1, 2, 3, 6, 12, 24, 60, 120].into_iter().find(|s| *s >= step).unwrap_or(120);
    let start = DateTime::from_timestamp_nanos(from);
    let mut month = start.year() * 12 + start.month0() as i32;
    month -= month.rem_euclid(step);
    let mut out = Vec::new();
    while out.len() < 100 {
        let date = NaiveDate::from_ymd_opt(month.div_euclid(12), month.rem_euclid(12) as u32 + 1, 1);
        let at = date.and_then(|d| d.and_hms_opt(0, 0, 0)).and_then(|t| t.and_utc().timestamp_nanos_opt());
        let (Some(date), Some(at)) = (date, at) else { break };
        if at > to {
            break;
        }
        if at >= from {
            out.push((at, date.format(if step >= 12 { "%Y" } else { "%b %Y" }).to_string()));
        }
        month += step;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover() {
        for domain in
            [(0.0, 1.0), (-3.7, 12.1), (99_873.2, 101_240.9), (1e-5, 3e-5), (5.0, 5.0), (-1e9, 2.5e9)]
        {
            let (values, _) = ticks(domain, 5);
            assert!(values.len() >= 2 && values.len() <= 9, "{domain:?} {values:?}");
            let slack = (values[1] - values[0]) * 1e-9;
            assert!(
                values[0] <= domain.0 + slack && values[values.len() - 1] >= domain.1 - slack,
                "{domain:?} {values:?}"
            );
        }
        assert_eq!(ticks((0.0, 1.0), 5), (vec![0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0], 1));
    }

    #[test]
    fn times_are_marked_at_days_and_months() {
        let day = |d: &str| {
            d.parse::<NaiveDate>()
                .unwrap()
                .and_hms_opt(0, 0, 0)
                .unwrap()
                .and_utc()
                .timestamp_nanos_opt()
                .unwrap()
        };
        let labels = |from: &str, to: &str| -> Vec<String> {
            time_ticks((day(from), day(to)), 6).into_iter().map(|t| t.1).collect()
        };
        assert_eq!(labels("2013-10-07", "2013-10-11"), ["Oct 7", "Oct 8", "Oct 9", "Oct 10", "Oct 11"]);
        assert_eq!(labels("2013-10-07", "2013-10-08")[..3], ["Oct 7", "06:00", "12:00"].map(String::from));
        assert_eq!(labels("2013-01-15", "2014-01-15")[..2], ["Apr 2013", "Jul 2013"].map(String::from));
        assert_eq!(labels("2000-01-15", "2020-01-15")[0], "2005");
        assert!(labels("2013-10-07", "2013-10-07").len() <= 1);
    }
}
