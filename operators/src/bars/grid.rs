//! The intervals of time bars: a grid from the epoch, or one that starts anew with each session.
//!
//! Intervals are `[start, end)`. A session's intervals start at its open, and the last one ends at
//! its close; instants outside sessions have no interval. The session around an instant is kept,
//! so the calendar is consulted once per session and not per row.

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, TimeDelta, TimeZone};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::Problems;
use tidemill_engine::problem::Problem;

/// Trading hours. Rows outside of them are left out.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Time zone of the hours, such as `America/New_York`.
    pub timezone: String,
    /// When it opens, local time: `09:30`. A row at this instant is in.
    pub open: String,
    /// When it closes, local time: `16:00`. A row at this instant is out. Not after `open`: it
    /// closes on the next day (`open: "18:00", close: "17:00"`).
    pub close: String,
    /// Days on which it opens. Default: Monday to Friday.
    #[serde(default = "weekdays")]
    pub days: Vec<Day>,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

fn weekdays() -> Vec<Day> {
    vec![Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri]
}

/// An interval `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Its first instant.
    pub start: i64,
    /// The instant after its last.
    pub end: i64,
    /// Whether a session begins with it.
    pub opens: bool,
}

/// Finds intervals.
#[derive(Clone, Debug)]
pub struct Grid {
    every: i64,
    offset: i64,
    hours: Option<Hours>,
}

impl Grid {
    /// A grid of `every` nanoseconds, shifted from the epoch by `offset`.
    pub fn plain(every: i64, offset: i64) -> Self {
        Self { every, offset, hours: None }
    }

    /// A grid of `every` nanoseconds from each session's open.
    pub fn session(every: i64, session: &Session) -> Result<Self, Problems> {
        Ok(Self { every, offset: 0, hours: Some(Hours::new(session)?) })
    }

    /// The interval that holds `ts`; `None` outside of sessions.
    pub fn interval(&mut self, ts: i64) -> Option<Interval> {
        let (origin, close) = match &mut self.hours {
            None => (self.offset, i64::MAX),
            Some(hours) => hours.around(ts)?,
        };
        let into = ts.saturating_sub(origin).rem_euclid(self.every);
        let start = ts.saturating_sub(into);
        let end = start.saturating_add(self.every).min(close);
        Some(Interval { start, end, opens: self.hours.is_some() && start == origin })
    }
}

/// A stretch of time inside one session, or between two.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    from: i64,
    until: i64,
    trading: bool,
}

#[derive(Clone, Debug)]
struct Hours {
    timezone: Tz,
    open: NaiveTime,
    close: NaiveTime,
    days: [bool; 7],
    near: Stretch,
}

/// Days looked at on each side of an instant: with one trading day a week, both neighbours are in reach.
const REACH: u64 = 8;

impl Hours {
    fn new(session: &Session) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let timezone = session.timezone.parse::<Tz>().unwrap_or_else(|_| {
            let names = chrono_tz::TZ_VARIANTS.iter().map(|tz| tz.name());
            let near = tidemill_engine::problem::nearest(&session.timezone, &names.collect::<Vec<_>>());
            let hint = near
                .map_or("write it as America/New_York or UTC".to_owned(), |n| format!("did you mean `{n}`?"));
            let reason = format!("unknown time zone `{}`", session.timezone);
            problems.push(Problem::new("session.timezone", reason).hint(hint));
            Tz::UTC
        });
        let mut time = |field: &str, text: &str| {
            let parsed = ["%H:%M", "%H:%M:%S"].iter().find_map(|f| NaiveTime::parse_from_str(text, f).ok());
            parsed.unwrap_or_else(|| {
                let reason = format!("`{text}` is not a time of day");
                problems.push(Problem::new(format!("session.{field}"), reason).hint("write it as \"09:30\""));
                NaiveTime::MIN
            })
        };
        let (open, close) = (time("open", &session.open), time("close", &session.close));
        if session.days.is_empty() {
            problems.push(Problem::new("session.days", "a session needs at least one day"));
        }
        let mut days = [false; 7];
        session.days.iter().for_each(|day| days[*day as usize] = true);
        let near = Stretch { from: 0, until: 0, trading: false };
        if problems.is_empty() { Ok(Self { timezone, open, close, days, near }) } else { Err(problems) }
    }

    /// Open and close of the session that holds `ts`.
    fn around(&mut self, ts: i64) -> Option<(i64, i64)> {
        if ts < self.near.from || ts >= self.near.until {
            self.near = self.locate(ts);
        }
        self.near.trading.then_some((self.near.from, self.near.until))
    }

    fn locate(&self, ts: i64) -> Stretch {
        let today = DateTime::from_timestamp_nanos(ts).with_timezone(&self.timezone).date_naive();
        let mut gap = Stretch { from: ts, until: ts.saturating_add(1), trading: false };
        let mut day = today.checked_sub_days(Days::new(REACH));
        for _ in 0..=2 * REACH {
            let Some(date) = day else { break };
            day = date.checked_add_days(Days::new(1));
            let Some((open, close)) = self.on(date) else { continue };
            if close <= ts {
                gap.from = close;
            } else if open <= ts {
                return Stretch { from: open, until: close, trading: true };
            } else {
                gap.until = open;
                break;
            }
        }
        gap
    }

    /// The session that opens on a day.
    fn on(&self, date: NaiveDate) -> Option<(i64, i64)> {
        let closes_on = if self.close > self.open { date } else { date.checked_add_days(Days::new(1))? };
        let trades = self.days[date.weekday().num_days_from_monday() as usize];
        let (open, close) = (self.utc(date, self.open)?, self.utc(closes_on, self.close)?);
        (trades && open < close).then_some((open, close))
    }

    /// A local time as an instant: the earlier of two, and the first after a gap in the clocks.
    fn utc(&self, date: NaiveDate, time: NaiveTime) -> Option<i64> {
        let mut local = date.and_time(time);
        for _ in 0..=96 {
            if let Some(instant) = self.timezone.from_local_datetime(&local).earliest() {
                return instant.timestamp_nanos_opt();
            }
            local = local.checked_add_signed(TimeDelta::minutes(15))?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    fn at(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_nanos_opt().unwrap()
    }

    fn nyse(every: i64) -> Grid {
        let session = Session {
            timezone: "America/New_York".into(),
            open: "09:30".into(),
            close: "16:00".into(),
            days: weekdays(),
        };
        Grid::session(every, &session).unwrap()
    }

    #[test]
    fn an_instant_at_an_end_is_in_the_next_interval_also_before_1970() {
        let mut grid = Grid::plain(10, 3);
        for (ts, start) in [(3, 3), (12, 3), (13, 13), (2, -7), (-7, -7), (-8, -17)] {
            let found = grid.interval(ts).unwrap();
            assert_eq!((found.start, found.end), (start, start + 10), "{ts}");
        }
        assert!(grid.interval(i64::MAX).is_some() && grid.interval(i64::MIN).is_some());
    }

    #[test]
    fn sessions_open_by_the_local_clock_through_a_change_of_it() {
        let mut grid = nyse(60 * MINUTE);
        // Friday in winter time, Monday in summer time.
        let friday = grid.interval(at("2024-03-08T14:30:00Z")).unwrap();
        assert!(friday.opens);
        assert_eq!(grid.interval(at("2024-03-11T13:29:59Z")), None);
        let monday = grid.interval(at("2024-03-11T13:30:00Z")).unwrap();
        assert!(monday.opens);
        assert_eq!(monday.end - monday.start, 60 * MINUTE);
        // The last interval is cut by the close; the close itself is out, as are weekends.
        let last = grid.interval(at("2024-03-11T19:59:59.999Z")).unwrap();
        assert_eq!((last.start, last.end), (at("2024-03-11T19:30:00Z"), at("2024-03-11T20:00:00Z")));
        assert_eq!(grid.interval(at("2024-03-11T20:00:00Z")), None);
        assert_eq!(grid.interval(at("2024-03-09T16:00:00Z")), None);
    }

    #[test]
    fn a_session_may_run_overnight_and_problems_name_their_field() {
        let mut session = Session {
            timezone: "America/Chicago".into(),
            open: "17:00".into(),
            close: "16:00".into(),
            days: vec![Day::Sun, Day::Mon],
        };
        let mut grid = Grid::session(MINUTE, &session).unwrap();
        let monday_morning = grid.interval(at("2024-06-03T08:00:30-05:00")).unwrap();
        assert_eq!(monday_morning.start, at("2024-06-03T08:00:00-05:00"));
        assert_eq!(grid.interval(at("2024-06-03T16:30:00-05:00")), None);
        session.timezone = "America/New_Yorc".into();
        session.open = "9h".into();
        session.days.clear();
        let problems = Grid::session(MINUTE, &session).unwrap_err();
        let text: Vec<String> = problems.iter().map(|p| p.to_string()).collect();
        assert_eq!(
            text,
            [
                "session.timezone: unknown time zone `America/New_Yorc` (did you mean `America/New_York`?)",
                "session.open: `9h` is not a time of day (write it as \"09:30\")",
                "session.days: a session needs at least one day",
            ]
        );
    }
}
