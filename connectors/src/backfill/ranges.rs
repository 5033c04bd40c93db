//! Spans of event time: what is asked for, without what is there, cut into pieces that are fetched one
//! by one.
//!
//! Spans are half open, in nanoseconds. Cutting is at calendar borders in UTC, never at multiples counted
//! from where a request happens to begin: two requests that overlap cut the same pieces.

use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveDateTime};

/// Nanoseconds of a day.
pub const DAY_NS: i64 = 86_400_000_000_000;

/// Everything a source may have: the years 1843 to 2128 (and no sum or difference in it overflows).
pub const WHOLE: Span = Span { from: -4_000_000_000_000_000_000, to: 5_000_000_000_000_000_000 };

/// `[from, to)` in nanoseconds since the epoch, never empty where it comes out of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first nanosecond of it.
    pub from: i64,
    /// The first nanosecond behind it.
    pub to: i64,
}

impl Span {
    /// A span; empty where `to` is not behind `from`.
    pub fn new(from: i64, to: i64) -> Self {
        Self { from, to }
    }

    /// Its length.
    pub fn length(self) -> u64 {
        u64::try_from(i128::from(self.to) - i128::from(self.from)).unwrap_or(0)
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.to <= self.from
    }

    /// Whether a time is in it.
    pub fn holds(self, ns: i64) -> bool {
        self.from <= ns && ns < self.to
    }

    /// What both have.
    pub fn overlap(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == WHOLE {
            return f.write_str("whole");
        }
        if self.from.rem_euclid(DAY_NS) == 0 && self.to - self.from == DAY_NS {
            return write!(f, "{}", DateTime::from_timestamp_nanos(self.from).format("%Y-%m-%d"));
        }
        write!(f, "{} to {}", time(self.from), time(self.to))
    }
}

/// A time as people read it: the date, and the time of day where it isn't midnight.
pub fn time(ns: i64) -> String {
    let at = DateTime::from_timestamp_nanos(ns);
    let format = if ns.rem_euclid(DAY_NS) == 0 { "%Y-%m-%d" } else { "%Y-%m-%dT%H:%M:%S%.fZ" };
    at.format(format).to_string()
}

/// The pieces that a request is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// At midnight UTC.
    Days,
    /// At the first of each month.
    Months,
    /// Not at all.
    Whole,
}

impl Cut {
    /// The first border behind `ns`.
    fn border(self, ns: i64) -> i64 {
        match self {
            Self::Days => (ns.div_euclid(DAY_NS) + 1).saturating_mul(DAY_NS),
            Self::Whole => i64::MAX,
            Self::Months => {
                let date = DateTime::from_timestamp_nanos(ns).date_naive();
                NaiveDate::from_ymd_opt(date.year(), date.month(), 1)
                    .and_then(|first| first.checked_add_months(Months::new(1)))
                    .and_then(|next| next.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_nanos_opt())
                    .unwrap_or(i64::MAX)
            }
        }
    }
}

/// What of `wanted` is in none of `there`, in order.
pub fn missing(wanted: Span, there: &[Span]) -> Vec<Span> {
    let mut there: Vec<Span> = there.iter().copied().filter(|s| !s.is_empty()).collect();
    there.sort_unstable();
    let mut out = Vec::new();
    let mut from = wanted.from;
    for span in there {
        if span.from > from {
            let hole = Span::new(from, span.from.min(wanted.to));
            if !hole.is_empty() {
                out.push(hole);
            }
        }
        from = from.max(span.to);
    }
    if from < wanted.to {
        out.push(Span::new(from, wanted.to));
    }
    out
}

/// A span in pieces.
pub fn pieces(span: Span, cut: Cut) -> Vec<Span> {
    let mut out = Vec::new();
    let mut from = span.from;
    while from < span.to {
        let to = cut.border(from).min(span.to);
        out.push(Span::new(from, to));
        from = to;
    }
    out
}

/// A time as users write it: `2024-01-02`, `2024-01`, `2024-01-02T03:04:05Z` or `2024-01-02 03:04` (UTC).
pub fn parse_time(text: &str) -> Result<i64, String> {
    let bad = || format!("`{text}` is not a time: write 2024-01-02 or 2024-01-02T03:04:05Z");
    let text = text.trim();
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return time.timestamp_nanos_opt().ok_or_else(bad);
    }
    let formats = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
    let naive = formats
        .iter()
        .find_map(|f| NaiveDateTime::parse_from_str(text, f).ok())
        .or_else(|| text.parse::<NaiveDate>().ok().map(|d| d.and_time(chrono::NaiveTime::MIN)))
        .or_else(|| {
            let first = format!("{text}-01").parse::<NaiveDate>().ok().filter(|_| text.len() == 7)?;
            Some(first.and_time(chrono::NaiveTime::MIN))
        });
    naive.and_then(|n| n.and_utc().timestamp_nanos_opt()).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use rand::Rng as _;

    use super::*;

    #[test]
    fn what_is_missing_agrees_with_a_bitmap() {
        let mut rng = <rand_pcg::Pcg64Mcg as rand::SeedableRng>::seed_from_u64(7);
        for _ in 0..2000 {
            let mut any = || {
                let from = rng.random_range(0..60);
                Span::new(from, from + rng.random_range(0..20))
            };
            let wanted = any();
            let there: Vec<Span> = (0..4).map(|_| any()).collect();
            let mut expected = [false; 100];
            (wanted.from..wanted.to).for_each(|i| expected[i as usize] = true);
            for span in &there {
                (span.from..span.to).for_each(|i| expected[i as usize] = false);
            }
            let mut got = [false; 100];
            for span in missing(wanted, &there) {
                assert!(!span.is_empty());
                for i in span.from..span.to {
                    assert!(!std::mem::replace(&mut got[i as usize], true), "twice");
                }
            }
            assert_eq!(got, expected, "{wanted:?} without {there:?}");
        }
    }

    #[test]
    fn pieces_end_at_calendar_borders_and_cover_the_span() {
        let at = |text: &str| parse_time(text).unwrap();
        let span = Span::new(at("2023-11-15T12:00:00Z"), at("2024-03-01T00:00:01Z"));
        let months: Vec<String> = pieces(span, Cut::Months).iter().map(ToString::to_string).collect();
        assert_eq!(
            months,
            [
                "2023-11-15T12:00:00Z to 2023-12-01",
                "2023-12-01 to 2024-01-01",
                "2024-01-01 to 2024-02-01",
                "2024-02-01 to 2024-03-01",
                "2024-03-01 to 2024-03-01T00:00:01Z"
            ]
        );
        let days = pieces(span, Cut::Days);
        assert_eq!(days.len(), 16 + 31 + 31 + 29 + 1);
        assert_eq!(days[1].to_string(), "2023-11-16");
        assert!(days.windows(2).all(|w| w[0].to == w[1].from));
        assert_eq!(pieces(span, Cut::Whole), [span]);
        assert_eq!(pieces(Span::new(5, 5), Cut::Days), []);
        // Before 1970 too.
        assert_eq!(pieces(Span::new(-5, 5), Cut::Days), [Span::new(-5, 0), Span::new(0, 5)]);
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, ns) in [
            ("1970-01-02", DAY_NS),
            ("1970-02", 31 * DAY_NS),
            ("1970-01-01T00:00:01.5Z", 1_500_000_000),
            ("1970-01-01 00:01", 60_000_000_000),
            ("1970-01-01T01:00:00+01:00", 0),
        ] {
            assert_eq!(parse_time(text), Ok(ns), "{text}");
        }
        assert!(parse_time("yesterday").unwrap_err().contains("write 2024-01-02"));
    }
}
