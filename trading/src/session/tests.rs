//! Sessions against the local clock, read minute by minute, and known openings.

use super::*;

const MINUTE: i64 = 60_000_000_000;

fn spec(zone: &str, open: &str, close: &str, days: Option<&[&str]>, holidays: &[&str]) -> SessionSpec {
    let text = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    SessionSpec {
        zone: zone.into(),
        open: open.into(),
        close: close.into(),
        days: days.map(text),
        holidays: text(holidays),
    }
}

fn utc(text: &str) -> i64 {
    text.parse::<DateTime<chrono::Utc>>().unwrap().timestamp_nanos_opt().unwrap()
}

fn new_york() -> Session {
    Session::new(&spec("America/New_York", "09:30", "16:00", None, &["2024-11-28"])).unwrap()
}

fn chicago() -> Session {
    let days = ["sun", "mon", "tue", "wed", "thu"];
    Session::new(&spec("America/Chicago", "17:00", "16:00", Some(&days), &[])).unwrap()
}

#[test]
fn new_york_opens_an_hour_earlier_in_utc_when_clocks_go_forward() {
    let market = new_york();
    for (ts, open, close) in [
        ("2024-03-08T12:00:00Z", "2024-03-08T14:30:00Z", "2024-03-08T21:00:00Z"),
        ("2024-03-08T21:00:00Z", "2024-03-11T13:30:00Z", "2024-03-11T20:00:00Z"),
        ("2024-11-01T20:00:00Z", "2024-11-04T14:30:00Z", "2024-11-04T21:00:00Z"),
        ("2024-11-27T21:00:00Z", "2024-11-29T14:30:00Z", "2024-11-29T21:00:00Z"),
    ] {
        let (ts, open, close) = (utc(ts), utc(open), utc(close));
        assert_eq!((market.next_open(ts), market.next_close(ts)), (open, close));
        assert!(!market.is_open(ts) && !market.is_open(open - 1) && market.is_open(open));
        assert!(market.is_open(close - 1) && !market.is_open(close));
        assert_eq!(market.next_close(open), close);
        assert!(market.next_open(open) >= close);
    }
}

#[test]
fn an_overnight_session_opens_on_sunday_whatever_the_clocks_do_that_night() {
    let market = chicago();
    for (open, close) in
        [("2024-03-10T22:00:00Z", "2024-03-11T21:00:00Z"), ("2024-11-03T23:00:00Z", "2024-11-04T22:00:00Z")]
    {
        let (open, close) = (utc(open), utc(close));
        assert_eq!(market.span(open), (open, close, true));
        assert!(!market.is_open(open - 1));
        assert_eq!(market.next_open(open - 1), open);
    }
    assert!(!market.is_open(utc("2024-03-08T22:30:00Z")), "friday evening");
}

/// A session over the very night in which clocks change: 23 and 25 hours of UTC between equal local times.
#[test]
fn a_session_over_the_change_is_an_hour_shorter_or_longer() {
    let days = ["sat"];
    let market = Session::new(&spec("America/New_York", "12:00", "12:00", Some(&days), &[])).unwrap();
    let (open, close, _) = market.span(utc("2024-03-10T05:00:00Z"));
    assert_eq!((close - open) / MINUTE, 23 * 60);
    let (open, close, _) = market.span(utc("2024-11-03T05:00:00Z"));
    assert_eq!((close - open) / MINUTE, 25 * 60);
    // 02:30 is not there on 10 March, 01:30 is there twice on 3 November.
    let days = ["sun"];
    let market = Session::new(&spec("America/New_York", "02:30", "05:00", Some(&days), &[])).unwrap();
    assert_eq!(market.next_open(utc("2024-03-10T00:00:00Z")), utc("2024-03-10T07:30:00Z"));
    let market = Session::new(&spec("America/New_York", "01:30", "05:00", Some(&days), &[])).unwrap();
    assert_eq!(market.next_open(utc("2024-11-03T00:00:00Z")), utc("2024-11-03T05:30:00Z"));
    let market = Session::new(&spec("America/New_York", "00:30", "01:30", Some(&days), &[])).unwrap();
    assert_eq!(market.next_close(utc("2024-11-03T05:00:00Z")), utc("2024-11-03T06:30:00Z"));
}

/// The other way round: what the clock on the wall says at each UTC minute decides.
#[test]
fn every_minute_of_a_year_agrees_with_the_clock_on_the_wall() {
    let (start, end) = (utc("2024-01-01T00:00:00Z"), utc("2025-01-01T00:00:00Z"));
    let day = |date: NaiveDate| date.weekday().num_days_from_monday();
    let time = |h, m| NaiveTime::from_hms_opt(h, m, 0).unwrap();
    let thanksgiving = NaiveDate::from_ymd_opt(2024, 11, 28).unwrap();
    let (eastern, central) = (chrono_tz::America::New_York, chrono_tz::America::Chicago);
    let (mut ny, mut ch) =
        (SessionClock::new(Some(Arc::new(new_york()))), SessionClock::new(Some(Arc::new(chicago()))));
    for ts in (start..end).step_by((7 * MINUTE) as usize) {
        let wall = DateTime::from_timestamp_nanos(ts).with_timezone(&eastern).naive_local();
        let hours = wall.time() >= time(9, 30) && wall.time() < time(16, 0);
        assert_eq!(ny.is_open(ts), hours && day(wall.date()) < 5 && wall.date() != thanksgiving, "{wall}");
        let wall = DateTime::from_timestamp_nanos(ts).with_timezone(&central).naive_local();
        // Evening of Sunday to Thursday, or the day after one of them until 16:00.
        let evening = wall.time() >= time(17, 0) && [6, 0, 1, 2, 3].contains(&day(wall.date()));
        let morning = wall.time() < time(16, 0) && [0, 1, 2, 3, 4].contains(&day(wall.date()));
        assert_eq!(ch.is_open(ts), evening || morning, "{wall}");
    }
}

#[test]
fn a_clock_says_what_its_session_says_in_any_order() {
    let session = Arc::new(new_york());
    let mut clock = SessionClock::new(Some(session.clone()));
    for n in [0i64, 5, 3, 400, 20_000, 19_999, -30_000, i64::MAX / MINUTE, i64::MIN / MINUTE] {
        let ts = utc("2024-03-08T14:30:00Z").saturating_add(n.saturating_mul(MINUTE));
        assert_eq!(clock.is_open(ts), session.is_open(ts));
        assert_eq!(clock.next_close(ts), session.next_close(ts));
        assert_eq!(clock.next_open(ts), session.next_open(ts));
    }
    let mut always = SessionClock::new(None);
    assert!(always.is_open(i64::MIN) && always.is_open(0) && always.is_open(i64::MAX));
    assert_eq!((always.next_close(0), always.next_open(0)), (NEVER, NEVER));
}

#[test]
fn adjacent_sessions_each_have_a_close() {
    let market = Session::new(&spec("UTC", "00:00", "24:00", None, &[])).unwrap();
    let monday = utc("2024-03-11T00:00:00Z");
    assert_eq!(market.next_close(monday), monday + 24 * 60 * MINUTE);
    assert!(market.is_open(monday + 24 * 60 * MINUTE) && !market.is_open(monday - 1));
}

#[test]
fn faults_name_the_field() {
    for (bad, start) in [
        (spec("Mars", "09:30", "16:00", None, &[]), "zone: `Mars`"),
        (spec("UTC", "9h", "16:00", None, &[]), "open: `9h`"),
        (spec("UTC", "09:30", "25:00", None, &[]), "close: `25:00`"),
        (spec("UTC", "09:30", "16:00", Some(&["someday"]), &[]), "days: `someday`"),
        (spec("UTC", "09:30", "16:00", Some(&[]), &[]), "days: there is no day"),
        (spec("UTC", "09:30", "16:00", None, &["tomorrow"]), "holidays: `tomorrow`"),
    ] {
        let error = Session::new(&bad).unwrap_err();
        assert!(error.starts_with(start), "{error}");
    }
}
