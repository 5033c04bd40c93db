//! What a served capture does wrong, by list or by chance; the same seed does the same.

use std::collections::BTreeMap;
use std::str::FromStr;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

/// One thing that goes wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It is not sent.
    Drop,
    /// It is sent twice.
    Duplicate,
    /// It changes places with the next one.
    Reorder,
    /// One of its digits is another (one of its letters, where it has no digit).
    Corrupt,
    /// Only its first half is sent, as a whole message.
    Truncate,
    /// The connection falls silent: nothing is sent, nothing read, pings go unanswered.
    Stall,
    /// The connection is cut within it.
    Cut,
}

const NAMES: [(&str, Fault); 7] = [
    ("drop", Fault::Drop),
    ("duplicate", Fault::Duplicate),
    ("reorder", Fault::Reorder),
    ("corrupt", Fault::Corrupt),
    ("truncate", Fault::Truncate),
    ("stall", Fault::Stall),
    ("cut", Fault::Cut),
];

/// Which faults come when. A message's number is its place among all received messages of the capture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// By the message's number.
    pub at: BTreeMap<usize, Fault>,
    /// The chance of each with every message; they are tried in this order, and one message has one fault at most.
    pub rates: Vec<(Fault, f64)>,
    /// Decides chances, and which digit is changed.
    pub seed: u64,
}

impl FromStr for Faults {
    type Err = String;

    /// `drop=0.01,cut@500`: a rate for every message, or a fault of one message.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut faults = Self::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (name, value) = part.split_once(['=', '@']).ok_or_else(|| {
                format!("`{part}` is no fault: write NAME=RATE (drop=0.01) or NAME@MESSAGE (cut@500)")
            })?;
            let known = NAMES.iter().find(|(n, _)| *n == name).map(|(_, fault)| *fault);
            let names: Vec<&str> = NAMES.iter().map(|(n, _)| *n).collect();
            let fault =
                known.ok_or_else(|| format!("`{name}` is no fault: there are {}", names.join(", ")))?;
            if part.contains('@') {
                let number = value.parse().map_err(|_| format!("`{value}` is no message's number"))?;
                faults.at.insert(number, fault);
            } else {
                let rate: f64 = value.parse().map_err(|_| format!("`{value}` is no rate"))?;
                if !(0.0..=1.0).contains(&rate) {
                    return Err(format!("the rate {rate} is not from 0 to 1"));
                }
                faults.rates.push((fault, rate));
            }
        }
        Ok(faults)
    }
}

impl Faults {
    /// What happens to message `number`; the same whenever it is asked.
    pub fn of(&self, number: usize) -> Option<Fault> {
        if let Some(fault) = self.at.get(&number) {
            return Some(*fault);
        }
        let mut random = self.random(number);
        self.rates.iter().find(|(_, rate)| random.random::<f64>() < *rate).map(|(fault, _)| *fault)
    }

    /// The message with one character changed.
    pub fn corrupt(&self, number: usize, text: &[u8]) -> Vec<u8> {
        let mut random = self.random(number ^ usize::MAX);
        let mut text = text.to_vec();
        let of = |kind: fn(&u8) -> bool| -> Vec<usize> {
            text.iter().enumerate().filter(|(_, b)| kind(b)).map(|(i, _)| i).collect()
        };
        let mut places = of(u8::is_ascii_digit);
        if places.is_empty() {
            places = of(u8::is_ascii_alphabetic);
        }
        if !places.is_empty() {
            let at = places[random.random_range(0..places.len())];
            text[at] = match text[at] {
                digit @ b'0'..=b'9' => b'0' + (digit - b'0' + random.random_range(1..10u8)) % 10,
                _ => b'#',
            };
        }
        text
    }

    fn random(&self, number: usize) -> Pcg64 {
        Pcg64::seed_from_u64(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_at_their_rate_the_same_for_a_seed_and_where_they_are_put() {
        let faults: Faults = "drop=0.1, corrupt=0.05,cut@7".parse().unwrap();
        let faults = Faults { seed: 3, ..faults };
        let all: Vec<Option<Fault>> = (0..20_000).map(|i| faults.of(i)).collect();
        assert_eq!(all, (0..20_000).map(|i| faults.of(i)).collect::<Vec<_>>());
        assert_eq!(all[7], Some(Fault::Cut));
        let share = |fault| all.iter().filter(|f| **f == Some(fault)).count() as f64 / 20_000.0;
        assert!((share(Fault::Drop) - 0.1).abs() < 0.01 && (share(Fault::Corrupt) - 0.045).abs() < 0.01);
        for bad in ["drop", "explode=1", "drop=2", "cut@x"] {
            assert!(bad.parse::<Faults>().is_err(), "{bad}");
        }
    }

    #[test]
    fn exactly_one_character_changes() {
        let faults = Faults::default();
        for i in 0..200 {
            for text in ["{\"p\":\"101.50\"}", "{\"ping\":true}"] {
                let bad = faults.corrupt(i, text.as_bytes());
                assert_eq!(bad.iter().zip(text.bytes()).filter(|(a, b)| **a != *b).count(), 1);
            }
        }
        assert_eq!(faults.corrupt(0, b"{}"), b"{}");
    }
}
