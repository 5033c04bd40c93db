//! Exact decimals as venues send them: a mantissa and how many digits stand after the point.
//!
//! `0.05005000` is 5005000 at scale 8, trailing zeros and all: a checksum over the digits (Kraken's) needs them as
//! they were sent. Comparison is by value (`0.5 == 0.50`). The mantissa is an `i128`, since sizes of cheap
//! tokens have 18 integer digits and 8 decimals, which is more than an `i64` can hold.

use std::cmp::Ordering;
use std::fmt;

/// Most digits a decimal may have, and the largest scale: 10^38 is the last power of ten in an `i128`.
pub const DIGITS_MAX: usize = 38;

/// An exact decimal number: `mantissa / 10^scale`.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    mantissa: i128,
    scale: u8,
}

/// Text that is no decimal number, or one with more than [`DIGITS_MAX`] digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a decimal number of at most {DIGITS_MAX} digits")]
pub struct BadDecimal {
    /// The text, cut to 64 bytes.
    pub text: String,
}

impl Decimal {
    /// Zero at scale 0.
    pub const ZERO: Self = Self { mantissa: 0, scale: 0 };

    /// `mantissa / 10^scale`.
    ///
    /// # Panics
    /// Where `scale` is above [`DIGITS_MAX`].
    pub const fn new(mantissa: i128, scale: u8) -> Self {
        assert!(scale as usize <= DIGITS_MAX, "scale above 38");
        Self { mantissa, scale }
    }

    /// Reads `-?digits(.digits)?` with an optional exponent (`e` or `E`), the whole of `text`. Digits must stand on both sides
    /// of a point; blanks, `+`, `NaN` and `inf` are refused. An exponent moves the point: `1.50e-3` is `0.00150`.
    ///
    /// # Errors
    /// [`BadDecimal`] for anything else.
    #[inline]
    pub fn parse(text: &[u8]) -> Result<Self, BadDecimal> {
        // The ordinary case: up to 18 digits, no sign, no exponent; its mantissa can't overflow a u64.
        let mut mantissa = 0u64;
        let mut point = None;
        if text.len() > 19 {
            return parse_any(text);
        }
        for (i, byte) in text.iter().enumerate() {
            let digit = byte.wrapping_sub(b'0');
            if digit <= 9 {
                mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            } else if *byte == b'.' && point.is_none() {
                point = Some(i);
            } else {
                return parse_any(text);
            }
        }
        let scale = match point {
            None if !text.is_empty() => 0,
            Some(at) if at > 0 && at + 1 < text.len() => text.len() - at - 1,
            _ => return Err(bad(text)),
        };
        // 19 bytes without a point are 19 digits: below 10^19, which is below 2^64.
        Ok(Self { mantissa: i128::from(mantissa), scale: scale as u8 })
    }

    /// The digits as one integer.
    #[inline]
    pub const fn mantissa(self) -> i128 {
        self.mantissa
    }

    /// How many digits stand after the point.
    #[inline]
    pub const fn scale(self) -> u8 {
        self.scale
    }

    /// Whether it is zero.
    #[inline]
    pub const fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// Whether it is below zero.
    #[inline]
    pub const fn is_negative(self) -> bool {
        self.mantissa < 0
    }

    /// Whether it is the same number with the same digits: `0.5` is not identical to `0.50`.
    #[inline]
    pub const fn identical(self, other: Self) -> bool {
        self.mantissa == other.mantissa && self.scale == other.scale
    }

    /// The mantissa at another scale; `None` where digits would be lost or it doesn't fit.
    #[inline]
    pub fn mantissa_at(self, scale: u8) -> Option<i128> {
        match scale.cmp(&self.scale) {
            Ordering::Equal => Some(self.mantissa),
            Ordering::Greater => self.mantissa.checked_mul(power(scale - self.scale)?),
            Ordering::Less => {
                let by = power(self.scale - scale)?;
                (self.mantissa % by == 0).then(|| self.mantissa / by)
            }
        }
    }

    /// The same number at another scale; `None` where digits would be lost or it doesn't fit.
    pub fn rescale(self, scale: u8) -> Option<Self> {
        Some(Self { mantissa: self.mantissa_at(scale)?, scale })
    }

    /// The nearest `f64`, ties to even.
    #[inline]
    pub fn to_f64(self) -> f64 {
        // Both operands are exact below these bounds, so the one division rounds correctly (Clinger 1990).
        if self.mantissa.unsigned_abs() <= 1 << 53 && self.scale <= 22 {
            return self.mantissa as i64 as f64 / EXACT_POWERS[usize::from(self.scale)];
        }
        self.to_string().parse().expect("a decimal's digits are a number")
    }
}

/// Powers of ten that an f64 holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

fn power(exponent: u8) -> Option<i128> {
    10i128.checked_pow(u32::from(exponent))
}

fn bad(text: &[u8]) -> BadDecimal {
    BadDecimal { text: String::from_utf8_lossy(&text[..text.len().min(64)]).into_owned() }
}

/// Signs, exponents and long numbers.
#[cold]
fn parse_any(text: &[u8]) -> Result<Decimal, BadDecimal> {
    parse_parts(text).ok_or_else(|| bad(text))
}

fn parse_parts(text: &[u8]) -> Option<Decimal> {
    let (negative, unsigned) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (digits, exponent) = match unsigned.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(at) => (&unsigned[..at], parse_exponent(&unsigned[at + 1..])?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = match digits.iter().position(|b| *b == b'.') {
        Some(at) if at + 1 == digits.len() => return None,
        Some(at) => (&digits[..at], &digits[at + 1..]),
        None => (digits, &[][..]),
    };
    if whole.is_empty() {
        return None;
    }
    let mut mantissa = 0i128;
    for byte in whole.iter().chain(fraction) {
        if !byte.is_ascii_digit() {
            return None;
        }
        mantissa = mantissa.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
    }
    let mut scale = i64::try_from(fraction.len()).ok()? - exponent;
    if scale < 0 {
        mantissa = mantissa.checked_mul(power(u8::try_from(-scale).ok()?)?)?;
        scale = 0;
    }
    let scale = u8::try_from(scale).ok().filter(|s| usize::from(*s) <= DIGITS_MAX)?;
    if mantissa >= power(DIGITS_MAX as u8)? {
        return None;
    }
    Some(Decimal { mantissa: if negative { -mantissa } else { mantissa }, scale })
}

/// An exponent of at most three digits; more can't lead to a number that fits.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        rest => (1, rest),
    };
    if digits.is_empty() || digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(sign * digits.iter().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
}

impl PartialEq for Decimal {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

impl PartialOrd for Decimal {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        if self.scale == other.scale {
            return self.mantissa.cmp(&other.mantissa);
        }
        if self.scale < other.scale {
            return compare_scaled(self.mantissa, other.scale - self.scale, other.mantissa);
        }
        compare_scaled(other.mantissa, self.scale - other.scale, self.mantissa).reverse()
    }
}

/// Compares `a * 10^by` with `b`. A product that overflows is larger in magnitude than any `b`.
fn compare_scaled(a: i128, by: u8, b: i128) -> Ordering {
    match power(by).and_then(|p| a.checked_mul(p)) {
        Some(scaled) => scaled.cmp(&b),
        None => a.cmp(&0),
    }
}

impl fmt::Display for Decimal {
    /// As it was sent: every digit after the point, trailing zeros too; never an exponent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.mantissa.unsigned_abs().to_string();
        let scale = usize::from(self.scale);
        let sign = if self.mantissa < 0 { "-" } else { "" };
        if scale == 0 {
            return write!(f, "{sign}{digits}");
        }
        let digits = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

impl std::str::FromStr for Decimal {
    type Err = BadDecimal;

    fn from_str(text: &str) -> Result<Self, BadDecimal> {
        Self::parse(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn digits_are_kept_as_sent() {
        for text in ["0.05005000", "0", "0.0", "10", "123456789012345678.12345678", "-1.50"] {
            assert_eq!(decimal(text).to_string(), text);
        }
        assert_eq!(decimal("00.10").to_string(), "0.10");
        assert_eq!(decimal("-0.0").to_string(), "0.0");
        let price = decimal("0.05005000");
        assert_eq!((price.mantissa(), price.scale()), (5_005_000, 8));
        assert_eq!(decimal("1.50e-3").to_string(), "0.00150");
        assert_eq!(decimal("1.50E+3").to_string(), "1500");
        assert_eq!(decimal("12e0").to_string(), "12");
        assert!(decimal("0.5").identical(decimal("0.5")) && !decimal("0.5").identical(decimal("0.50")));
    }

    #[test]
    fn junk_is_refused() {
        let junk = [
            "",
            " ",
            ".",
            "-",
            "-.5",
            "5.",
            ".5",
            "1..2",
            "1.2.3",
            "+1",
            "NaN",
            "inf",
            "0x10",
            "1e",
            "1e+",
            "1e1.5",
            "1e9999",
            "e5",
            "1,5",
            "1 ",
            "\u{0661}",
            "99999999999999999999.99999999999999999999",
            "1e-39",
            "1e38",
            "1_000",
            "--1",
            "1-",
            "0.000000000000000000000000000000000000001",
        ];
        for text in junk {
            assert!(Decimal::parse(text.as_bytes()).is_err(), "{text:?} was read");
        }
        assert!(Decimal::parse(b"\xff\xfe").is_err());
        let long = "9".repeat(200);
        assert_eq!(Decimal::parse(long.as_bytes()).unwrap_err().text.len(), 64);
        assert_eq!(decimal(&"9".repeat(38)).to_string(), "9".repeat(38));
    }

    /// Order of two numbers by their text alone: padded to one shape, digits compare as letters do.
    fn order_by_text(a: &str, b: &str) -> Ordering {
        let shape = |text: &str| {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            format!("{whole:0>40}.{fraction:0<40}")
        };
        match (a.strip_prefix('-'), b.strip_prefix('-')) {
            (None, None) => shape(a).cmp(&shape(b)),
            (Some(a), Some(b)) => shape(b).cmp(&shape(a)),
            (negative, _) => {
                let zero = |t: &str| t.trim_start_matches('-').bytes().all(|c| matches!(c, b'0' | b'.'));
                match (zero(a) && zero(b), negative) {
                    (true, _) => Ordering::Equal,
                    (false, Some(_)) => Ordering::Less,
                    (false, None) => Ordering::Greater,
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn text_reads_back_and_is_the_nearest_float(text in "-?(0|[1-9][0-9]{0,17})\\.[0-9]{1,12}") {
            let number = decimal(&text);
            let negative_zero = number.is_zero() && text.starts_with('-');
            prop_assert_eq!(number.to_string(), &text[usize::from(negative_zero)..]);
            // The standard library's reader rounds correctly; it is another implementation.
            prop_assert_eq!(number.to_f64(), text.parse::<f64>().unwrap());
        }

        #[test]
        fn values_compare_as_numbers(a in "-?[0-9]{1,8}(\\.[0-9]{1,9})?", b in "-?[0-9]{1,22}(\\.[0-9]{1,16})?") {
            prop_assert_eq!(decimal(&a).cmp(&decimal(&b)), order_by_text(&a, &b));
            prop_assert_eq!(decimal(&b).cmp(&decimal(&a)), order_by_text(&b, &a));
        }

        #[test]
        fn any_bytes_are_a_number_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(number) = Decimal::parse(&bytes) {
                let text = std::str::from_utf8(&bytes).unwrap();
                prop_assert_eq!(number.to_f64(), text.parse::<f64>().unwrap());
            }
        }

        #[test]
        fn near_numbers_are_read_or_refused_like_floats(text in "[-+0-9.eE]{0,24}") {
            match Decimal::parse(text.as_bytes()) {
                Ok(number) => prop_assert_eq!(number.to_f64(), text.parse::<f64>().unwrap()),
                Err(_) => {
                    // What is refused is junk, has another form than venues send, or too many digits.
                    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (1..=38).contains(&text.len());
                    prop_assert!(!plain);
                }
            }
        }
    }

    #[test]
    fn scales_of_very_different_size_compare() {
        let huge = Decimal::new(i128::MAX, 0);
        let tiny = Decimal::new(1, 38);
        assert_eq!((huge.cmp(&tiny), tiny.cmp(&huge)), (Ordering::Greater, Ordering::Less));
        assert!(Decimal::new(-i128::MAX, 0) < tiny);
        assert!(Decimal::new(0, 0) == Decimal::new(0, 38));
        assert_eq!(decimal("1.50").rescale(1).unwrap().to_string(), "1.5");
        assert!(decimal("1.55").rescale(1).is_none() && huge.rescale(1).is_none());
    }
}
