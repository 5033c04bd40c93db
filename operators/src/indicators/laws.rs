//! What every registered indicator must hold to, and that nothing drifts.
use serde_json::Value;

use super::*;

/// A reproducible market of two keys in turns: open, high, low, close, volume.
fn market(rows: usize) -> Vec<[f64; 5]> {
    let mut seed = 7_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as f64 / (1_u64 << 31) as f64
    };
    let mut close = 100.0;
    let mut bars = Vec::new();
    for _ in 0..rows {
        let open = close;
        close = (open + random() - 0.5_f64).max(1.0);
        let high = open.max(close) + random() * 0.3;
        let low = open.min(close) - random() * 0.3;
        bars.push([open, high, low, close, (random() * 1000.0).floor()]);
    }
    bars
}

fn pick(role: Role, bar: &[f64; 5]) -> f64 {
    match role {
        Role::Open => bar[0],
        Role::High => bar[1],
        Role::Low => bar[2],
        Role::Price | Role::Close => bar[3],
        Role::Volume => bar[4],
    }
}

/// The outputs of a bank for these rows, as bits, column by column.
fn feed(spec: &Spec, bank: &mut dyn Bank, slots: &[u32], bars: &[[f64; 5]]) -> Vec<Vec<u64>> {
    let columns: Vec<Vec<f64>> =
        spec.inputs.iter().map(|&role| bars.iter().map(|bar| pick(role, bar)).collect()).collect();
    let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
    let mut out = vec![Vec::new(); spec.outputs.len()];
    bank.update(slots, &columns, &mut out);
    let bits = |column: Vec<f64>| column.into_iter().map(f64::to_bits).collect();
    out.into_iter().map(bits).collect()
}

fn new_bank(spec: &Spec, keys: usize) -> Box<dyn Bank> {
    let mut bank = spec.build(&Value::Null).expect("defaults build");
    bank.reserve(keys);
    bank
}

fn join(mut a: Vec<Vec<u64>>, b: Vec<Vec<u64>>) -> Vec<Vec<u64>> {
    for (a, b) in a.iter_mut().zip(b) {
        a.extend(b);
    }
    a
}

#[test]
fn every_indicator_becomes_warm() {
    let bars = market(400);
    for spec in all() {
        let out = feed(spec, &mut *new_bank(spec, 1), &[0; 400], &bars);
        for (name, column) in spec.outputs.iter().zip(out) {
            assert!(f64::from_bits(column[399]).is_finite(), "{name}");
        }
    }
}

#[test]
fn a_checkpoint_at_any_row_changes_no_bit() {
    let bars = market(300);
    let slots: Vec<u32> = (0..300).map(|i| i % 3 % 2).collect();
    for spec in all() {
        let whole = feed(spec, &mut *new_bank(spec, 2), &slots, &bars);
        for cut in [0, 1, 2, 5, 20, 61, 150, 299] {
            let mut before = new_bank(spec, 2);
            let first = feed(spec, &mut *before, &slots[..cut], &bars[..cut]);
            let mut bytes = Vec::new();
            (0..2).for_each(|slot| before.encode(slot, &mut bytes));
            let mut after = new_bank(spec, 2);
            let mut rest = bytes.as_slice();
            for slot in 0..2 {
                after.decode(slot, &mut rest).expect(spec.name);
            }
            assert!(rest.is_empty());
            let second = feed(spec, &mut *after, &slots[cut..], &bars[cut..]);
            assert!(join(first, second) == whole, "{} cut at {cut}", spec.name);
        }
    }
}

#[test]
fn a_torn_checkpoint_is_an_error() {
    for spec in all() {
        let mut bank = new_bank(spec, 1);
        feed(spec, &mut *bank, &[0; 90], &market(90));
        let mut bytes = Vec::new();
        bank.encode(0, &mut bytes);
        if let Some(torn) = bytes.len().checked_sub(1) {
            assert!(bank.decode(0, &mut &bytes[..torn]).is_err(), "{}", spec.name);
        }
    }
}

#[test]
fn a_spoilt_checkpoint_never_panics() {
    let bars = market(90);
    for spec in all() {
        let mut bank = new_bank(spec, 1);
        feed(spec, &mut *bank, &[0; 90], &bars);
        let mut bytes = Vec::new();
        bank.encode(0, &mut bytes);
        for at in 0..bytes.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut spoilt = bytes.clone();
                spoilt[at] ^= mask;
                if bank.decode(0, &mut spoilt.as_slice()).is_ok() {
                    feed(spec, &mut *bank, &[0; 40], &bars[..40]);
                }
            }
        }
    }
}

#[test]
fn a_null_in_any_input_changes_nothing() {
    let bars = market(200);
    for spec in all() {
        let clean = feed(spec, &mut *new_bank(spec, 1), &[0; 200], &bars);
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            for &role in spec.inputs {
                let mut bank = new_bank(spec, 1);
                let mut out = vec![Vec::new(); spec.outputs.len()];
                for bar in &bars {
                    let mut null = *bar;
                    match role {
                        Role::Open => null[0] = bad,
                        Role::High => null[1] = bad,
                        Role::Low => null[2] = bad,
                        Role::Price | Role::Close => null[3] = bad,
                        Role::Volume => null[4] = bad,
                    }
                    for column in feed(spec, &mut *bank, &[0], &[null]) {
                        assert!(f64::from_bits(column[0]).is_nan(), "{}", spec.name);
                    }
                    out = join(out, feed(spec, &mut *bank, &[0], &[*bar]));
                }
                assert!(out == clean, "{} with {bad} as {role:?}", spec.name);
            }
        }
    }
}

#[test]
fn keys_and_batches_do_not_mix() {
    let bars = market(200);
    for spec in all() {
        let alone = feed(spec, &mut *new_bank(spec, 1), &[0; 200], &bars);
        // Each row for two keys, then those of one.
        let twice: Vec<_> = bars.iter().flat_map(|&bar| [bar, bar]).collect();
        let slots: Vec<u32> = (0..400).map(|i| 1 - i % 2).collect();
        let mut bank = new_bank(spec, 2);
        let both = join(
            feed(spec, &mut *bank, &slots[..133], &twice[..133]),
            feed(spec, &mut *bank, &slots[133..], &twice[133..]),
        );
        for (alone, both) in alone.iter().zip(both) {
            let odd: Vec<u64> = both.into_iter().skip(1).step_by(2).collect();
            assert!(odd == *alone, "{}", spec.name);
        }
    }
}

#[test]
fn reset_forgets() {
    let bars = market(100);
    for spec in all() {
        let mut bank = new_bank(spec, 1);
        let first = feed(spec, &mut *bank, &[0; 100], &bars);
        bank.reset(0);
        assert!(feed(spec, &mut *bank, &[0; 100], &bars) == first, "{}", spec.name);
    }
}

#[test]
fn no_input_panics_or_spoils_what_follows() {
    let odd = [0.0, -0.0, -1.0, 1e75, -1e75, 1e-300, 5e-324, 1e18, 7.0, 7.0, 1e300];
    let bars = market(3000);
    for spec in all() {
        let mut bank = new_bank(spec, 1);
        for i in 0..2000_usize {
            let at = |n: usize| odd[(i * n + i / 7 + n) % odd.len()];
            for column in feed(spec, &mut *bank, &[0], &[[at(3), at(5), at(2), at(7), at(1)]]) {
                assert!(!f64::from_bits(column[0]).is_infinite(), "{}", spec.name);
            }
        }
        let out = feed(spec, &mut *bank, &[0; 3000], &bars);
        for (name, column) in spec.outputs.iter().zip(out) {
            let last = f64::from_bits(column[2999]);
            assert!(last.is_finite(), "{name}: {last}");
        }
    }
}

/// Ten million prices about 1e5: the last windows equal those of a fresh start.
#[test]
fn ten_million_rows_do_not_drift() {
    const ROWS: usize = 10_000_000;
    const BATCH: usize = 1_000_000;
    let mut seed = 1_u64;
    let mut prices = || -> Vec<f64> {
        let next = |_| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            1e5 + (seed >> 33) as f64 * 1e-7
        };
        (0..BATCH).map(next).collect()
    };
    let names = ["sma", "wma", "stddev", "vwma", "linreg"];
    let specs = names.map(|name| find(name).expect("registered"));
    let mut banks = specs.map(|spec| new_bank(spec, 1));
    let slots = vec![0; BATCH];
    let mut last = Vec::new();
    for _ in 0..ROWS / BATCH {
        last = prices();
        for (spec, bank) in specs.iter().zip(&mut banks) {
            let mut out = vec![Vec::with_capacity(BATCH); spec.outputs.len()];
            bank.update(&slots, &vec![last.as_slice(); spec.inputs.len()], &mut out);
        }
    }
    let more = prices();
    let tail = &last[BATCH - 500..];
    for (spec, bank) in specs.iter().zip(&mut banks) {
        let mut fresh = new_bank(spec, 1);
        let update = |bank: &mut dyn Bank, rows: &[f64]| {
            let mut out = vec![Vec::new(); spec.outputs.len()];
            bank.update(&slots[..rows.len()], &vec![rows; spec.inputs.len()], &mut out);
            out
        };
        update(&mut *fresh, tail);
        let long = update(&mut **bank, &more[..500]);
        let fresh = update(&mut *fresh, &more[..500]);
        for ((name, long), fresh) in spec.outputs.iter().zip(long).zip(fresh) {
            for (a, b) in long.iter().zip(&fresh) {
                let floor = if *name == "linreg_slope" { 1e-2 } else { 0.0 };
                assert!((a - b).abs() <= 1e-9 * b.abs().max(floor), "{name}: {a}, not {b}");
            }
        }
    }
}
