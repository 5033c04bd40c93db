//! Corporate actions from a file: splits and dividends that fall due while positions are held.
//!
//! A CSV with a header: `ts,symbol,kind,value`. `ts` is RFC 3339 (or a date: midnight UTC), `kind` is `split` (value: new units for an old one) or
//! `dividend` (value: cash for a unit, in the instrument's quote currency).
//!
//! A split's value is a number, or two of them as `1/7` or `1:7`. Vendors write 0.142857 for one in seven: a number with decimals that is, within
//! half a unit of its last one, a fraction whose denominator is small for so many decimals (its cube is below 10 to their number), is that fraction.

use serde::{Deserialize, Serialize};

use crate::money::Decimal;

/// Something that happens to all holders of an instrument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorporateAction {
    /// When; UTC nanoseconds.
    pub ts: i64,
    /// Of what.
    pub symbol: String,
    /// What.
    pub kind: CorporateKind,
    /// Ratio or amount, above zero.
    pub value: Decimal,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CorporateKind {
    /// Every unit becomes `value` units.
    Split,
    /// Every unit gets `value` in cash.
    Dividend,
}

/// Reads the file's text: the actions in order of time, or all that is wrong, line by line.
pub fn parse(text: &str) -> Result<Vec<CorporateAction>, Vec<String>> {
    let mut actions = Vec::new();
    let mut wrong = Vec::new();
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    match lines.next() {
        Some((_, header)) if header.split(',').map(str::trim).eq(["ts", "symbol", "kind", "value"]) => {}
        _ => return Err(vec!["line 1: the header must be `ts,symbol,kind,value`".into()]),
    }
    for (i, line) in lines {
        match action(line) {
            Ok(action) => actions.push(action),
            Err(why) => wrong.push(format!("line {}: {why}", i + 1)),
        }
    }
    // Stable, so that two of one time come in the file's order.
    actions.sort_by_key(|a| a.ts);
    if wrong.is_empty() { Ok(actions) } else { Err(wrong) }
}

fn action(line: &str) -> Result<CorporateAction, String> {
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    let [ts, symbol, kind, value] = cells[..] else {
        return Err(format!("has {} columns, not 4", cells.len()));
    };
    let kind = match kind {
        "split" => CorporateKind::Split,
        "dividend" => CorporateKind::Dividend,
        other => return Err(format!("`{other}` is neither `split` nor `dividend`")),
    };
    let time = chrono::DateTime::parse_from_rfc3339(ts).ok().and_then(|t| t.timestamp_nanos_opt());
    let date = || ts.parse::<chrono::NaiveDate>().ok()?.and_hms_opt(0, 0, 0)?.and_utc().timestamp_nanos_opt();
    let ts = time
        .or_else(date)
        .ok_or_else(|| format!("`{ts}` is no time: write 2024-06-10T13:30:00Z or 2024-06-10"))?;
    let parsed = match kind {
        CorporateKind::Split => ratio(value),
        CorporateKind::Dividend => Decimal::from_str_exact(value).ok(),
    };
    let value = parsed.ok_or_else(|| format!("`{value}` is not a number"))?;
    if value <= Decimal::ZERO || symbol.is_empty() {
        return Err("needs a symbol, and a value above zero".into());
    }
    Ok(CorporateAction { ts, symbol: symbol.to_owned(), kind, value })
}

/// New units for an old one: `10`, `0.1`, `1/7` or `1:7`.
fn ratio(text: &str) -> Option<Decimal> {
    let number = |text: &str| Decimal::from_str_exact(text.trim()).ok();
    match text.split_once(['/', ':']) {
        Some((new, old)) => number(new)?.checked_div(number(old)?),
        None => number(text).map(|value| fraction_near(value).unwrap_or(value)),
    }
}

/// The fraction with the smallest denominator that a number with decimals was rounded from, where that is a likely one.
fn fraction_near(value: Decimal) -> Option<Decimal> {
    let scale = value.scale();
    let half_unit = Decimal::new(5, scale.checked_add(1).filter(|digits| *digits <= 28)?);
    (1..=u64::from(u16::MAX)).take_while(|old| (*old as f64).powi(3) < 10f64.powi(scale as i32)).find_map(
        |old| {
            let new = value.checked_mul(old.into())?.round();
            let exact = new.checked_div(old.into())?;
            ((exact - value).abs() <= half_unit).then_some(exact)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_fractions_as_vendors_round_them() {
        let d = |text: &str| Decimal::from_str_exact(text).unwrap();
        let seventh = Decimal::ONE / Decimal::from(7);
        for text in ["1/7", "1:7", "1 : 7", "0.142857", "0.1429", "0.143"] {
            assert_eq!(ratio(text), Some(seventh), "{text}");
        }
        assert_eq!(ratio("0.3333"), Some(Decimal::ONE / Decimal::from(3)));
        for exact in ["10", "0.1", "0.05", "1.5", "0.125", "1.05", "1.015", "0.0125", "0.9877", "20"] {
            assert_eq!(ratio(exact), Some(d(exact)), "{exact}");
        }
        assert_eq!((ratio("1/0"), ratio("x")), (None, None));
    }

    #[test]
    fn actions_come_in_order_of_time() {
        let text =
            "ts,symbol,kind,value\n2024-06-10T13:30:00Z,NVDA,split,10\n2024-03-05, NVDA ,dividend,0.04\n";
        let actions = parse(text).unwrap();
        assert_eq!(actions[0].kind, CorporateKind::Dividend);
        assert_eq!(actions[0].ts, 1_709_596_800_000_000_000);
        assert_eq!((actions[1].symbol.as_str(), actions[1].value), ("NVDA", 10.into()));
    }

    #[test]
    fn every_bad_line_is_told() {
        let wrong =
            parse("ts,symbol,kind,value\n2024,A,split,2\n2024-01-01,A,merger,2\n2024-01-01,A,split,0\nx\n")
                .unwrap_err();
        assert_eq!(wrong.len(), 4);
        assert!(wrong[0].starts_with("line 2: `2024` is no time"), "{wrong:?}");
        assert!(parse("").is_err());
    }
}
