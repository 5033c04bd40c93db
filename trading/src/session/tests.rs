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
        breaks: Vec::new(),
        early_close: Default::default(),
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

/// Tokyo, with a lunch break, and a half day that ends in the morning.
fn tokyo() -> Session {
    let mut spec = spec("Asia/Tokyo", "09:00", "15:00", None, &[]);
    spec.breaks = vec!["11:30-12:30".into()];
    spec.early_close.insert("2013-12-30".into(), "11:00".into());
    Session::new(&spec).unwrap()
}

#[test]
fn a_break_closes_the_market_and_ends_no_session() {
    let market = tokyo();
    let at = |hours: &str| utc(&format!("2013-12-27T{hours}:00+09:00"));
    assert_eq!(market.span(at("10:00")), (at("09:00"), at("11:30"), true));
    assert_eq!(market.span(at("11:30")), (at("11:30"), at("12:30"), false));
    assert_eq!(market.span(at("12:30")), (at("12:30"), at("15:00"), true));
    for hours in ["08:00", "09:00", "11:29", "11:30", "12:00", "12:30", "14:59"] {
        assert_eq!(market.next_close(at(hours)), at("15:00"), "{hours}");
    }
    assert_eq!((market.next_open(at("09:00")), market.next_open(at("12:00"))), (at("12:30"), at("12:30")));
    let mut clock = SessionClock::new(Some(Arc::new(market)));
    for (hours, open, change) in
        [("09:00", true, "11:30"), ("11:45", false, "12:30"), ("13:00", true, "15:00")]
    {
        let ts = at(hours);
        assert_eq!((clock.is_open(ts), clock.next_change(ts)), (open, at(change)), "{hours}");
        assert_eq!(clock.next_close(ts), at("15:00"), "{hours}");
    }
}

#[test]
fn a_session_may_end_early() {
    let market = tokyo();
    let at = |text: &str| utc(&format!("2013-12-{text}:00+09:00"));
    // The break would begin after it.
    assert_eq!(market.span(at("30T10:00")), (at("30T09:00"), at("30T11:00"), true));
    assert_eq!(market.span(at("30T11:00")), (at("30T11:00"), at("31T09:00"), false));
    assert_eq!(market.next_close(at("30T09:00")), at("30T11:00"));
    // In New York the day after Thanksgiving is half a one; overnight sessions go by the date on which they open.
    let mut half = spec("America/New_York", "09:30", "16:00", None, &["2013-11-28"]);
    half.early_close.insert("2013-11-29".into(), "13:00".into());
    let half = Session::new(&half).unwrap();
    assert_eq!(half.next_close(utc("2013-11-27T22:00:00Z")), utc("2013-11-29T18:00:00Z"));
    assert_eq!(half.next_close(utc("2013-11-29T18:00:00Z")), utc("2013-12-02T21:00:00Z"));
    let mut night = spec("America/Chicago", "17:00", "16:00", Some(&["sun", "wed"]), &[]);
    night.early_close.insert("2013-11-27".into(), "12:15".into());
    let night = Session::new(&night).unwrap();
    let opens = utc("2013-11-27T23:00:00Z");
    assert_eq!(night.span(opens), (opens, utc("2013-11-28T18:15:00Z"), true));
}

/// Breaks and early ends against the local clock, read minute by minute, over both changes of the clocks.
#[test]
fn sessions_with_breaks_agree_with_the_local_clock() {
    let mut spec = spec("Europe/Berlin", "22:00", "17:00", Some(&["fri", "sat", "sun"]), &[]);
    spec.breaks = vec!["12:00-12:45".into(), "23:30-00:30".into(), "05:00-06:00".into()];
    spec.early_close.insert("2024-03-30".into(), "12:20".into());
    let market = Session::new(&spec).unwrap();
    let mut clock = SessionClock::new(Some(Arc::new(market.clone())));
    for from in ["2024-03-29T00:00:00Z", "2024-10-26T00:00:00Z"] {
        for minute in 0..4 * 24 * 60 {
            let ts = utc(from) + minute * MINUTE;
            let local = DateTime::from_timestamp_nanos(ts).with_timezone(&market.zone).naive_local();
            let clock_time = local.format("%H:%M").to_string();
            // The date on which the session of that time opened.
            let opened =
                if clock_time.as_str() >= "22:00" { local.date() } else { local.date().pred_opt().unwrap() };
            let close = if opened.to_string() == "2024-03-30" { "12:20" } else { "17:00" };
            let day = matches!(opened.weekday(), Weekday::Fri | Weekday::Sat | Weekday::Sun);
            let inside = clock_time.as_str() >= "22:00" || clock_time.as_str() < close;
            let paused = [("12:00", "12:45"), ("23:30", "24:00"), ("00:00", "00:30"), ("05:00", "06:00")]
                .iter()
                .any(|(start, end)| clock_time.as_str() >= *start && clock_time.as_str() < *end);
            let expect = day && inside && !paused;
            assert_eq!((market.is_open(ts), clock.is_open(ts)), (expect, expect), "{local}");
            assert_eq!(clock.next_close(ts), market.next_close(ts), "{local}");
        }
    }
}

#[test]
fn breaks_and_early_ends_that_cannot_be_are_said() {
    let said = |breaks: &[&str], early: &[(&str, &str)]| {
        let mut spec = spec("UTC", "09:00", "15:00", None, &[]);
        spec.breaks = breaks.iter().map(|b| b.to_string()).collect();
        spec.early_close = early.iter().map(|(d, t)| (d.to_string(), t.to_string())).collect();
        Session::new(&spec).unwrap_err()
    };
    assert_eq!(said(&["noon"], &[]), "breaks: `noon` is not a pause: write HH:MM-HH:MM, such as 11:30-12:30");
    assert!(said(&["14:00-16:00"], &[]).contains("within the session"));
    assert!(said(&["12:00-11:00"], &[]).contains("within the session"));
    assert!(
        said(&["11:00-12:00", "10:00-11:30"], &[]).contains("begins before the one at 10:00:00 has ended")
    );
    assert!(said(&[], &[("29.11.2013", "13:00")]).contains("is not a date"));
    assert!(said(&[], &[("2013-11-29", "13")]).contains("is not a time of day"));
    assert!(said(&[], &[("2013-11-29", "15:00")]).contains("not between the session's open and its close"));
}
