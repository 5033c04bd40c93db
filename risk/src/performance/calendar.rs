//! Returns by month of the calendar (UTC), from equity at times.

use serde::{Deserialize, Serialize};

const DAY_NS: i64 = 86_400_000_000_000;

/// The return of one month, or of the part of it that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MonthlyReturn {
    /// Year of the calendar.
    pub year: i32,
    /// Month, 1 to 12.
    pub month: u8,
    /// The last equity of the month over the last one before it (in the first month: over the first equity), less one.
    pub value: f64,
}

/// The year and month (1 to 12) of a time in UTC nanoseconds, of the proleptic Gregorian calendar (Hinnant, "chrono-compatible low-level
/// date algorithms": civil_from_days).
pub fn year_month(ts: i64) -> (i32, u8) {
    let days = ts.div_euclid(DAY_NS) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    // 292 years around 1970 fit in nanoseconds, and months are 1 to 12.
    (year as i32, month as u8)
}

/// The returns of each month in which equity was observed, in order. Points are (UTC nanoseconds, equity), times never falling; those that
/// are not finite or not above zero are left out. A month without a point has no row: its return is in the next one that has.
pub fn monthly_returns(points: impl IntoIterator<Item = (i64, f64)>) -> Vec<MonthlyReturn> {
    let mut out: Vec<MonthlyReturn> = Vec::new();
    let mut base = 0.0;
    let mut last: Option<f64> = None;
    for (ts, equity) in points {
        if !(equity.is_finite() && equity > 0.0) {
            continue;
        }
        let (year, month) = year_month(ts);
        if out.last().is_none_or(|row| (row.year, row.month) != (year, month)) {
            base = last.unwrap_or(equity);
            out.push(MonthlyReturn { year, month, value: 0.0 });
        }
        if let Some(row) = out.last_mut() {
            row.value = equity / base - 1.0;
        }
        last = Some(equity);
    }
    out
}
