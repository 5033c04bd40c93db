//! When an instrument is traded: sessions of local hours, in UTC.
//!
//! A session belongs to the local date on which it opens: `days` and `holidays` are of that date, also for a session that ends on the next
//! one. A session is `[open, close)`, less its breaks; one that ends early does so on the date that says it. Hours are local, so in UTC they move with daylight saving time, each end by itself. An hour that
//! does not exist on a day (clocks go forward) is taken as long after the one before the change as it says (02:30 is 03:30 then); of an
//! hour that comes twice, an opening takes the first and a close the second, so that the session covers both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::offset::LocalResult;
use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Weekday};
use chrono_tz::Tz;

use crate::instrument::SessionSpec;

/// Never: what is told where no session is to come.
pub const NEVER: i64 = i64::MAX;

/// How far ahead a session is looked for: longer than any run of holidays.
const LOOK_AHEAD_DAYS: u64 = 400;

/// The sessions of a market.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    zone: Tz,
    open: NaiveTime,
    close: NaiveTime,
    days: [bool; 7],
    holidays: BTreeSet<NaiveDate>,
    /// In order, apart from each other, inside the session.
    breaks: Vec<(NaiveTime, NaiveTime)>,
    early_close: BTreeMap<NaiveDate, NaiveTime>,
}

impl Session {
    /// Reads a graph's session. The error says what is wrong with which field.
    pub fn new(spec: &SessionSpec) -> Result<Self, String> {
        let zone = spec.zone.parse().map_err(|_| {
            format!("zone: `{}` is not a time zone: write a name such as America/New_York or UTC", spec.zone)
        })?;
        let mut days = [false; 7];
        match &spec.days {
            None => days[..5].fill(true),
            Some(names) => {
                for name in names {
                    let day: Weekday = name.parse().map_err(|_| {
                        format!("days: `{name}` is not a day: write mon, tue, wed, thu, fri, sat or sun")
                    })?;
                    days[day.num_days_from_monday() as usize] = true;
                }
            }
        }
        if !days.contains(&true) {
            return Err("days: there is no day with a session".into());
        }
        let holidays = spec.holidays.iter().map(|text| date("holidays", text)).collect::<Result<_, _>>()?;
        // The end of a day is the start of the next one, and a close that is not after the open is on the next day.
        let close = if spec.close == "24:00" { "00:00" } else { &spec.close };
        let (open, close) = (time("open", &spec.open)?, time("close", close)?);
        let early = |(text, at): (&String, &String)| {
            let (date, at) = (date("early_close", text)?, time("early_close", at)?);
            match inside(open, close, at) {
                true => Ok((date, at)),
                false => Err(format!(
                    "early_close: {at} on {date} is not between the session's open and its close"
                )),
            }
        };
        let early_close = spec.early_close.iter().map(early).collect::<Result<_, _>>()?;
        let breaks = breaks(&spec.breaks, open, close)?;
        Ok(Self { zone, open, close, days, holidays, breaks, early_close })
    }

    /// Whether `ts` (UTC nanoseconds) is in a session, and in none of its breaks.
    pub fn is_open(&self, ts: i64) -> bool {
        self.span(ts).2
    }

    /// When the session that `ts` is in ends, a break in it or not; outside of sessions: when the next one does. [`NEVER`] if there is none.
    pub fn next_close(&self, ts: i64) -> i64 {
        self.sessions(ts).map(|(_, (_, close))| close).find(|&close| close > ts).unwrap_or(NEVER)
    }

    /// When the first session opens, or goes on after a break, that does so after `ts`. [`NEVER`] if there is none.
    pub fn next_open(&self, ts: i64) -> i64 {
        self.parts(ts).map(|(open, _)| open).find(|&open| open > ts).unwrap_or(NEVER)
    }

    /// The span `[from, until)` around `ts` in which nothing changes, and whether the market is open in it.
    pub fn span(&self, ts: i64) -> (i64, i64, bool) {
        let mut from = i64::MIN;
        for (open, close) in self.parts(ts) {
            if ts < open {
                return (from, open, false);
            }
            if ts < close {
                return (open, close, true);
            }
            from = close;
        }
        (from, NEVER, false)
    }

    /// The sessions from shortly before `ts` on, in order, without their breaks.
    fn parts(&self, ts: i64) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.sessions(ts).flat_map(|(date, (open, close))| {
            let mut parts = Vec::with_capacity(1 + self.breaks.len());
            let mut from = open;
            for (start, end) in &self.breaks {
                let start = self.utc(self.on(date, *start), false).map_or(close, |start| start.min(close));
                let end = self.utc(self.on(date, *end), true).map_or(close, |end| end.min(close));
                if start < end && start > from {
                    parts.push((from, start));
                    from = end;
                }
            }
            parts.extend((from < close).then_some((from, close)));
            parts
        })
    }

    /// A time of the session that opens on `date`.
    fn on(&self, date: NaiveDate, time: NaiveTime) -> NaiveDateTime {
        let date = if time > self.open { date } else { date.succ_opt().unwrap_or(date) };
        date.and_time(time)
    }

    /// The sessions from shortly before `ts` on, in order: the date and `(open, close)`.
    fn sessions(&self, ts: i64) -> impl Iterator<Item = (NaiveDate, (i64, i64))> + '_ {
        let date = DateTime::from_timestamp_nanos(ts).with_timezone(&self.zone).date_naive();
        // A session that opened two local dates ago may still be on: it is up to a day long, and longer where clocks go back.
        let first = date.checked_sub_days(Days::new(2)).unwrap_or(date);
        first
            .iter_days()
            .take(LOOK_AHEAD_DAYS as usize)
            .filter(|date| self.days[date.weekday().num_days_from_monday() as usize])
            .filter(|date| !self.holidays.contains(date))
            .filter_map(|date| Some((date, self.session_of(date)?)))
    }

    fn session_of(&self, date: NaiveDate) -> Option<(i64, i64)> {
        let close = self.early_close.get(&date).copied().unwrap_or(self.close);
        let open = self.utc(date.and_time(self.open), true)?;
        let close = self.utc(self.on(date, close), false)?;
        (open < close).then_some((open, close))
    }

    fn utc(&self, local: NaiveDateTime, first: bool) -> Option<i64> {
        let at = match self.zone.from_local_datetime(&local) {
            LocalResult::Single(at) => at,
            LocalResult::Ambiguous(one, other) => {
                if first {
                    one.min(other)
                } else {
                    one.max(other)
                }
            }
            LocalResult::None => {
                // Read with the offset of a day before, which is that before the change.
                let day = TimeDelta::days(1);
                self.zone
                    .from_local_datetime(&local.checked_sub_signed(day)?)
                    .earliest()?
                    .checked_add_signed(day)?
            }
        };
        at.timestamp_nanos_opt()
    }
}

fn date(field: &str, text: &str) -> Result<NaiveDate, String> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .map_err(|_| format!("{field}: `{text}` is not a date: write YYYY-MM-DD"))
}

/// How long after `open` a time of day comes.
fn after(open: NaiveTime, time: NaiveTime) -> TimeDelta {
    let after = time.signed_duration_since(open);
    if after < TimeDelta::zero() { after + TimeDelta::days(1) } else { after }
}

/// Whether a time of day is in a session, its ends not counted.
fn inside(open: NaiveTime, close: NaiveTime, time: NaiveTime) -> bool {
    let whole = after(open, close);
    let whole = if whole.is_zero() { TimeDelta::days(1) } else { whole };
    let at = after(open, time);
    at > TimeDelta::zero() && at < whole
}

fn breaks(
    texts: &[String],
    open: NaiveTime,
    close: NaiveTime,
) -> Result<Vec<(NaiveTime, NaiveTime)>, String> {
    let mut breaks = Vec::with_capacity(texts.len());
    for text in texts {
        let (start, end) = text.split_once('-').ok_or_else(|| {
            format!("breaks: `{text}` is not a pause: write HH:MM-HH:MM, such as 11:30-12:30")
        })?;
        let (start, end) = (time("breaks", start.trim())?, time("breaks", end.trim())?);
        if !inside(open, close, start) || !inside(open, close, end) || after(open, start) >= after(open, end)
        {
            return Err(format!("breaks: `{text}` does not begin and end within the session"));
        }
        breaks.push((start, end));
    }
    breaks.sort_by_key(|(start, _)| after(open, *start));
    match breaks.windows(2).find(|w| after(open, w[1].0) <= after(open, w[0].1)) {
        Some(w) => {
            Err(format!("breaks: the one at {} begins before the one at {} has ended", w[1].0, w[0].0))
        }
        None => Ok(breaks),
    }
}

fn time(field: &str, text: &str) -> Result<NaiveTime, String> {
    NaiveTime::parse_from_str(text, "%H:%M")
        .map_err(|_| format!("{field}: `{text}` is not a time of day: write HH:MM, such as 09:30"))
}

/// A [`Session`] that remembers where it is: a look-up in the same span as the last one is two comparisons.
///
/// What it remembers is no state: it need not be saved.
#[derive(Clone, Debug)]
pub struct SessionClock {
    session: Option<Arc<Session>>,
    from: i64,
    until: i64,
    open: bool,
    /// While open: when the session ends.
    close: i64,
}

impl SessionClock {
    /// For an instrument with these hours, or one that is always traded.
    pub fn new(session: Option<Arc<Session>>) -> Self {
        // An empty span: the first look-up fills it.
        let always = session.is_none();
        Self {
            session,
            from: if always { i64::MIN } else { 0 },
            until: if always { NEVER } else { 0 },
            open: always,
            close: NEVER,
        }
    }

    /// Whether the market is open at `ts`.
    #[inline]
    pub fn is_open(&mut self, ts: i64) -> bool {
        if !(ts >= self.from && ts < self.until) {
            self.look_up(ts);
        }
        self.open
    }

    /// When this changes next: the close while open, the opening while closed. [`NEVER`] where it does not.
    #[inline]
    pub fn next_change(&mut self, ts: i64) -> i64 {
        self.is_open(ts);
        self.until
    }

    /// As [`Session::next_close`].
    pub fn next_close(&mut self, ts: i64) -> i64 {
        match self.session.clone() {
            None => NEVER,
            Some(_) if self.is_open(ts) => self.close,
            Some(session) => session.next_close(ts),
        }
    }

    /// As [`Session::next_open`]; [`NEVER`] where the market is always open.
    pub fn next_open(&mut self, ts: i64) -> i64 {
        match self.session.clone() {
            None => NEVER,
            Some(_) if !self.is_open(ts) => self.until,
            Some(session) => session.next_open(ts),
        }
    }

    #[cold]
    fn look_up(&mut self, ts: i64) {
        if let Some(session) = &self.session {
            (self.from, self.until, self.open) = session.span(ts);
            self.close = session.next_close(ts);
        }
    }
}

#[cfg(test)]
mod tests;
