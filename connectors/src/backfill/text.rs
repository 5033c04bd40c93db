//! Times as text and as numbers.
//!
//! The common spellings (`2024-01-02`, `2024-01-02 03:04:05.123`, with `T`, with `Z` or an offset) are read by
//! hand, at some tens of nanoseconds each; a format of the user's goes through chrono. Without a zone it is UTC.

use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};

const SECOND_NS: i64 = 1_000_000_000;

/// Unit of times that are plain numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Told by the number's size: seconds below 10^11, milliseconds below 10^14, microseconds below 10^17,
    /// else nanoseconds. Right for any time from 1973 to 5138.
    #[default]
    Auto,
    /// So many nanoseconds each.
    Of(i64),
}

impl Unit {
    /// Nanoseconds of a time.
    pub fn ns(self, time: i64) -> Option<i64> {
        let unit = match self {
            Self::Of(ns) => ns,
            Self::Auto => match time.unsigned_abs() {
                0..100_000_000_000 => SECOND_NS,
                100_000_000_000..100_000_000_000_000 => 1_000_000,
                100_000_000_000_000..100_000_000_000_000_000 => 1000,
                _ => 1,
            },
        };
        time.checked_mul(unit)
    }
}

impl FromStr for Unit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "auto" => Self::Auto,
            "s" => Self::Of(SECOND_NS),
            "ms" => Self::Of(1_000_000),
            "us" => Self::Of(1000),
            "ns" => Self::Of(1),
            _ => return Err(format!("`{text}` is no unit of time: auto, s, ms, us or ns")),
        })
    }
}

/// How a time is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeFormat {
    /// A format of chrono's (`%Y-%m-%d`); else a number, or ISO 8601.
    pub format: Option<String>,
    /// The unit of numbers.
    pub unit: Unit,
}

impl TimeFormat {
    /// Nanoseconds since the epoch; `None` where it is no such time.
    pub fn parse(&self, text: &str) -> Option<i64> {
        let text = text.trim();
        let Some(format) = &self.format else {
            if let Some(ns) = iso(text.as_bytes()) {
                return Some(ns);
            }
            return match text.parse::<i64>() {
                Ok(number) => self.unit.ns(number),
                Err(_) => decimal(text, self.unit),
            };
        };
        if let Ok(time) = DateTime::parse_from_str(text, format) {
            return time.timestamp_nanos_opt();
        }
        let naive = NaiveDateTime::parse_from_str(text, format).ok();
        let naive = naive
            .or_else(|| NaiveDate::parse_from_str(text, format).ok().map(|d| d.and_time(NaiveTime::MIN)));
        naive?.and_utc().timestamp_nanos_opt()
    }
}

/// A number with decimals: `1398902401.787` seconds.
fn decimal(text: &str, unit: Unit) -> Option<i64> {
    let (whole, decimals) = text.split_once('.')?;
    if decimals.is_empty() || decimals.len() > 18 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    let ns = unit.ns(whole)?;
    let step = match unit {
        Unit::Of(step) => step,
        Unit::Auto => ns.checked_div(whole).unwrap_or(SECOND_NS),
    };
    let part =
        i128::from(decimals.parse::<u64>().ok()?) * i128::from(step) / 10_i128.pow(decimals.len() as u32);
    let part = i64::try_from(part).ok()?;
    if text.starts_with('-') { ns.checked_sub(part) } else { ns.checked_add(part) }
}

/// `YYYY-MM-DD[(T| )HH:MM[:SS[.f]]][Z|±HH[:]MM]`.
fn iso(text: &[u8]) -> Option<i64> {
    if text.len() < 10 || text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let (year, month, day) = (digits(&text[0..4])?, digits(&text[5..7])?, digits(&text[8..10])?);
    let days = days(year, month, day)?;
    let mut ns = days.checked_mul(86_400 * SECOND_NS)?;
    let mut rest = &text[10..];
    if rest.is_empty() {
        return Some(ns);
    }
    if !matches!(rest[0], b'T' | b't' | b' ') || rest.len() < 6 || rest[3] != b':' {
        return None;
    }
    let (hour, minute) = (digits(&rest[1..3])?, digits(&rest[4..6])?);
    rest = &rest[6..];
    let mut second = 0;
    let mut part = 0;
    if rest.first() == Some(&b':') {
        second = digits(rest.get(1..3)?)?;
        rest = &rest[3..];
        if rest.first() == Some(&b'.') {
            let n = rest[1..].iter().take_while(|b| b.is_ascii_digit()).count();
            if n == 0 || n > 18 {
                return None;
            }
            let value = digits(&rest[1..=n.min(9)])?;
            part = value * 10_i64.pow(9 - n.min(9) as u32);
            rest = &rest[1 + n..];
        }
    }
    // 60: a leap second, which is the first of the next minute here as everywhere.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let offset = match rest {
        [] | [b'Z' | b'z'] => 0,
        [b' ', b'U', b'T', b'C'] => 0,
        [sign @ (b'+' | b'-'), zone @ ..] => {
            let (h, m) = match zone {
                [a, b] => (digits(&[*a, *b])?, 0),
                [a, b, c, d] | [a, b, b':', c, d] => (digits(&[*a, *b])?, digits(&[*c, *d])?),
                _ => return None,
            };
            if h > 23 || m > 59 {
                return None;
            }
            let seconds = h * 3600 + m * 60;
            if *sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    ns = ns.checked_add((hour * 3600 + minute * 60 + second - offset) * SECOND_NS)?;
    ns.checked_add(part)
}

fn digits(text: &[u8]) -> Option<i64> {
    let mut n = 0;
    for b in text {
        if !b.is_ascii_digit() {
            return None;
        }
        n = n * 10 + i64::from(b - b'0');
    }
    Some(n)
}

/// Days since 1970 of a date of the Gregorian calendar; `None` where there is no such day.
/// Howard Hinnant, `days_from_civil`: <https://howardhinnant.github.io/date_algorithms.html>.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || day > longest {
        return None;
    }
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let of_era = y - era * 400;
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use rand::Rng as _;

    use super::*;

    #[test]
    fn times_agree_with_chrono() {
        let mut rng = <rand_pcg::Pcg64Mcg as rand::SeedableRng>::seed_from_u64(5);
        let plain = TimeFormat::default();
        for _ in 0..20_000 {
            let ns: i64 = rng.random_range(-9_000_000_000_000_000_000..9_000_000_000_000_000_000);
            let time = DateTime::from_timestamp_nanos(ns);
            if time.format("%Y").to_string().len() != 4 {
                continue;
            }
            for format in ["%Y-%m-%dT%H:%M:%S%.9fZ", "%Y-%m-%d %H:%M:%S%.9f", "%Y-%m-%dT%H:%M:%S%.9f%:z"] {
                let text = time.format(format).to_string();
                assert_eq!(plain.parse(&text), Some(ns), "{text}");
            }
            let shifted = time.with_timezone(&chrono::FixedOffset::east_opt(-12_600).unwrap());
            assert_eq!(plain.parse(&shifted.to_rfc3339()), Some(ns));
            let day = time.format("%Y-%m-%d").to_string();
            assert_eq!(plain.parse(&day), Some(ns.div_euclid(86_400 * SECOND_NS) * 86_400 * SECOND_NS));
        }
    }

    #[test]
    fn formats_units_and_what_is_no_time() {
        let with = |format: &str| TimeFormat { format: Some(format.into()), unit: Unit::Auto };
        assert_eq!(with("%d/%m/%Y").parse("02/01/1970"), Some(86_400 * SECOND_NS));
        assert_eq!(with("%Y%m%d %H%M%S").parse("19700102 000001"), Some(86_401 * SECOND_NS));
        let plain = TimeFormat::default();
        for text in ["1398902401", "1398902401000", "1398902401000000", "1398902401000000000", "1398902401.0"]
        {
            assert_eq!(plain.parse(text), Some(1_398_902_401_000_000_000), "{text}");
        }
        assert_eq!(plain.parse("1398902401787.5"), Some(1_398_902_401_787_500_000));
        let seconds = TimeFormat { format: None, unit: Unit::Of(SECOND_NS) };
        assert_eq!(seconds.parse("5"), Some(5 * SECOND_NS));
        for text in [
            "",
            "2024-02-30",
            "2024-13-01",
            "2024-01-01T25:00:00",
            "soon",
            "2024-01-01T00:00:00+1",
            "2024-01-01x",
        ] {
            assert_eq!(plain.parse(text), None, "{text}");
        }
    }
}
