//! An EMA by wallet for very many wallets, without the rest of a job: rows a second and the highest resident size.
//!
//!     cargo run --release -p tidemill-engine --example keyed_state -- KEYS ROWS zipf|uniform [MEMORY FOLDER]
//!
//! `KEYS` and `ROWS` are millions. The first rows name each wallet once; their speed is printed apart. `MEMORY` (`1GiB`) is
//! the budget of keyed state; left out, all keys stay in memory. `SNAPSHOT=1` takes a snapshot at the end.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field};
use tidemill_engine::clock::Clock;
use tidemill_engine::keyed::ExpiringState;
use tidemill_engine::operator::State;
use tidemill_engine::row;
use tidemill_engine::state_memory::{StateMemory, StateOptions};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const BATCH: u64 = 16_384;

/// SplitMix64 of a number: a bijection.
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn batch(rows: std::ops::Range<u64>, wallet: impl Fn(u64) -> u64) -> Outcome<RecordBatch> {
    let fields = [
        Arc::new(Field::new("wallet", DataType::UInt64, false)),
        Arc::new(Field::new("price", DataType::Float64, false)),
    ];
    let n = (rows.end - rows.start) as usize;
    let columns: Vec<ArrayRef> = vec![
        row::ts_array(rows.clone().map(|row| row as i64 * 1000).collect()),
        Arc::new(UInt64Array::from(vec![0; n])),
        Arc::new(UInt64Array::from_iter_values(rows.clone())),
        Arc::new(UInt64Array::from_iter_values(rows.clone().map(wallet))),
        Arc::new(Float64Array::from_iter_values(rows.map(|row| (mix(row) % 10_000) as f64))),
    ];
    Ok(RecordBatch::try_new(row::stream_schema(&fields), columns)?)
}

fn main() -> Outcome<()> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [keys, rows, draw, rest @ ..] = &given[..] else {
        return Err("KEYS ROWS zipf|uniform [MEMORY FOLDER]".into());
    };
    let (keys, rows) = ((keys.parse::<f64>()? * 1e6) as u64, (rows.parse::<f64>()? * 1e6) as u64);
    let zipf = draw == "zipf";
    let options = match rest {
        [memory, folder] => StateOptions { memory: Some(memory.parse()?), spill: Some(folder.clone()) },
        _ => StateOptions::default(),
    };
    let memory = StateMemory::open(&options, "benchmark")?;
    let mut state: ExpiringState<Vec<(f64, u32)>> =
        ExpiringState::new(vec![3], &batch(0..0, mix)?.schema(), None, Vec::new);
    if let Some(part) = memory.part("ema", true)? {
        state.limit(part)?;
    }
    let drawn = |row: u64| {
        let number = mix(row ^ 0x5555_5555_5555_5555);
        if zipf {
            // Number r with a probability in proportion to 1/r.
            let unit = (number >> 11) as f64 / (1_u64 << 53) as f64;
            mix(((keys as f64 + 1.0).powf(unit) as u64).clamp(1, keys) - 1)
        } else {
            mix(number % keys)
        }
    };
    let mut sum = 0.0;
    for (name, first, last) in [("each key once", 0, keys), ("drawn", keys, keys + rows)] {
        let clock = Clock::System.start();
        let mut longest = std::time::Duration::ZERO;
        let mut at = first;
        while at < last {
            let until = (at + BATCH).min(last);
            let rows = if first == 0 { batch(at..until, mix)? } else { batch(at..until, drawn)? };
            let one = Clock::System.start();
            let prices = rows.column(4).clone();
            let prices = arrow::array::AsArray::as_primitive::<arrow::datatypes::Float64Type>(&prices);
            let (slots, emas) = state.rows(&rows)?;
            for (slot, price) in slots.iter().zip(prices.values()) {
                let (ema, n) = &mut emas[*slot as usize];
                *ema = if *n == 0 { *price } else { *ema + (price - *ema) * 2.0 / 21.0 };
                *n += 1;
                sum += *ema;
            }
            state.trim()?;
            longest = longest.max(one.elapsed());
            at = until;
        }
        let took = clock.elapsed().as_secs_f64();
        let n = last - first;
        println!(
            "{name}: {n} rows in {took:.1} s: {:.3} M rows/s, longest batch {:.0} ms, {:?}",
            n as f64 / took / 1e6,
            longest.as_secs_f64() * 1e3,
            state.spilled()
        );
    }
    if std::env::var_os("SNAPSHOT").is_some() {
        let clock = Clock::System.start();
        state.begin();
        let began = clock.elapsed();
        let (mut bytes, mut longest) = (0, std::time::Duration::ZERO);
        loop {
            let slice = Clock::System.start();
            let Some(groups) = state.next(256 * 1024)? else { break };
            longest = longest.max(slice.elapsed());
            bytes += groups.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        }
        println!(
            "snapshot: {} MB in {:.1} s, beginning {:.1} ms, longest slice {:.1} ms",
            bytes / 1_000_000,
            clock.elapsed().as_secs_f64(),
            began.as_secs_f64() * 1e3,
            longest.as_secs_f64() * 1e3
        );
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default().trim();
    println!("{keys} keys, {draw}: at most {peak} resident (checksum {sum:.3})");
    Ok(())
}
