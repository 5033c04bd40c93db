//! Days of a time zone.

use chrono::{DateTime, Days, NaiveTime, TimeDelta, TimeZone};
use chrono_tz::Tz;

/// A time zone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Zone(Tz);

impl Zone {
    /// UTC where there is no name.
    pub(super) fn new(name: Option<&str>) -> Result<Self, String> {
        let Some(name) = name else { return Ok(Self(Tz::UTC)) };
        let bad = |_| format!("`{name}` is no time zone: write one such as America/New_York or UTC");
        name.parse().map(Self).map_err(bad)
    }

    /// The first instant after the day of `ts` (UTC nanoseconds): midnight, or what comes after it where clocks skip it.
    pub(super) fn day_end(self, ts: i64) -> i64 {
        let local = DateTime::from_timestamp_nanos(ts).with_timezone(&self.0).date_naive();
        let Some(next) = local.checked_add_days(Days::new(1)) else { return i64::MAX };
        let mut time = next.and_time(NaiveTime::MIN);
        // Clocks skip at most a day (Samoa, 2011).
        for _ in 0..=48 {
            if let Some(instant) = self.0.from_local_datetime(&time).earliest() {
                return instant.timestamp_nanos_opt().unwrap_or(i64::MAX);
            }
            time += TimeDelta::minutes(30);
        }
        i64::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_nanos_opt().unwrap()
    }

    #[test]
    fn days_end_at_midnight_of_the_zone() {
        let day_end = |zone: &str, ts: &str| Zone::new(Some(zone)).unwrap().day_end(ns(ts));
        assert_eq!(day_end("UTC", "2024-03-10T00:00:00Z"), ns("2024-03-11T00:00:00Z"));
        assert_eq!(day_end("UTC", "2024-03-09T23:59:59.999999999Z"), ns("2024-03-10T00:00:00Z"));
        // The clocks of New York went forward on 10 March 2024: that day had 23 hours.
        assert_eq!(day_end("America/New_York", "2024-03-10T04:59:59Z"), ns("2024-03-10T00:00:00-05:00"));
        assert_eq!(day_end("America/New_York", "2024-03-10T05:00:00Z"), ns("2024-03-11T00:00:00-04:00"));
        // Those of Santiago skipped midnight of 8 September 2024.
        assert_eq!(day_end("America/Santiago", "2024-09-07T12:00:00-04:00"), ns("2024-09-08T01:00:00-03:00"));
        assert!(Zone::new(Some("Mars/Olympus")).is_err());
    }
}
