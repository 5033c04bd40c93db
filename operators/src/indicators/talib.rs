//! Every indicator that TA-Lib has too, against TA-Lib 0.8 itself on 828 one-minute bars of SPY.
use std::collections::HashMap;
use std::path::PathBuf;

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;

use super::*;

/// Indicator, params, and for each of its outputs the TA-Lib column it must equal (or none).
fn pairs() -> Vec<(&'static str, serde_json::Value, Vec<&'static str>)> {
    let p = |period: u32| json!({ "period": period });
    vec![
        ("ad", json!({}), vec!["AD"]),
        ("adosc", json!({"fast": 3, "slow": 10}), vec!["ADOSC"]),
        ("adx", p(14), vec!["ADX", "PLUS_DI", "MINUS_DI"]),
        ("apo", json!({"fast": 12, "slow": 26}), vec!["APO"]),
        ("aroon", p(14), vec!["AROON.aroonup", "AROON.aroondown", "AROONOSC"]),
        ("atr", p(14), vec!["ATR"]),
        (
            "bollinger",
            json!({"period": 20, "width": 2.0}),
            vec!["BBANDS.upperband", "BBANDS.middleband", "BBANDS.lowerband"],
        ),
        ("bop", json!({}), vec!["BOP"]),
        ("cci", p(14), vec!["CCI"]),
        ("cmf", p(20), vec!["CMF"]),
        ("cmo", p(14), vec!["CMO"]),
        ("dema", p(30), vec!["DEMA"]),
        ("donchian", p(20), vec!["DONCHIAN.upperband", "DONCHIAN.middleband", "DONCHIAN.lowerband"]),
        ("ema", p(30), vec!["EMA"]),
        ("force", p(13), vec!["EFI"]),
        ("hma", p(20), vec!["HMA"]),
        ("kama", p(30), vec!["KAMA"]),
        (
            "keltner",
            json!({"period": 20, "atr_period": 10, "width": 2.0}),
            vec!["KC.upperband", "KC.middleband", "KC.lowerband"],
        ),
        ("linreg", p(14), vec!["LINEARREG", "LINEARREG_SLOPE", "LINEARREG_INTERCEPT", "TSF"]),
        (
            "macd",
            json!({"fast": 12, "slow": 26, "signal": 9}),
            vec!["MACD.macd", "MACD.macdsignal", "MACD.macdhist"],
        ),
        ("max", p(30), vec!["MAX"]),
        ("mfi", p(14), vec!["MFI"]),
        ("min", p(30), vec!["MIN"]),
        ("mom", p(10), vec!["MOM"]),
        ("natr", p(14), vec!["NATR"]),
        ("obv", json!({}), vec!["OBV"]),
        ("ppo", json!({"fast": 12, "slow": 26}), vec!["PPO"]),
        ("psar", json!({"step": 0.02, "max": 0.2}), vec!["SAR", ""]),
        ("pvt", json!({}), vec!["PVT"]),
        ("rma", p(30), vec!["RMA"]),
        ("roc", p(10), vec!["ROC"]),
        ("rsi", p(14), vec!["RSI"]),
        ("sma", p(30), vec!["SMA"]),
        ("stddev", p(5), vec!["STDDEV"]),
        ("stoch", json!({"period": 5, "smooth": 3, "signal": 3}), vec!["STOCH.slowk", "STOCH.slowd"]),
        ("stoch", json!({"period": 5, "smooth": 1, "signal": 3}), vec!["STOCHF.fastk", "STOCHF.fastd"]),
        (
            "stoch_rsi",
            json!({"period": 5, "rsi_period": 14, "smooth": 1, "signal": 3}),
            vec!["STOCHRSI.fastk", "STOCHRSI.fastd"],
        ),
        (
            "supertrend",
            json!({"period": 10, "width": 3.0}),
            vec!["SUPERTREND.supertrend", "SUPERTREND.trend"],
        ),
        ("t3", json!({"period": 5, "factor": 0.7}), vec!["T3"]),
        ("tema", p(30), vec!["TEMA"]),
        ("trima", p(30), vec!["TRIMA"]),
        ("trix", p(30), vec!["TRIX"]),
        ("true_range", json!({}), vec!["TRANGE"]),
        ("tsi", json!({"slow": 25, "fast": 13}), vec!["TSI"]),
        ("ultimate", json!({"fast": 7, "middle": 14, "slow": 28}), vec!["ULTOSC"]),
        ("vortex", p(14), vec!["VORTEX.plusvi", "VORTEX.minusvi"]),
        ("vwap", json!({}), vec!["VWAP"]),
        ("vwma", p(30), vec!["VWMA"]),
        ("williams_r", p(14), vec!["WILLR"]),
        ("wma", p(30), vec!["WMA"]),
        ("zlema", p(30), vec!["ZLEMA"]),
    ]
}

/// The oracle's columns, or none where the data folder is absent (in CI it must be there).
fn oracle() -> Option<HashMap<String, Vec<f64>>> {
    let folder = std::env::var_os("TIDEMILL_DATA").map_or_else(|| "../../shared/data".into(), PathBuf::from);
    let path = folder.join("oracles/talib_spy_1m_20131008.parquet");
    let Ok(file) = std::fs::File::open(&path) else {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "{} is absent and CI=true", path.display());
        eprintln!("SKIPPED: TA-Lib's answers are absent: no {}", path.display());
        return None;
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|b| b.build());
    let mut columns: HashMap<String, Vec<f64>> = HashMap::new();
    for batch in reader.expect("a Parquet file") {
        let batch = batch.expect("a whole Parquet file");
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            let values = column.as_primitive::<Float64Type>().iter();
            let values = values.map(|x| x.unwrap_or(f64::NAN));
            columns.entry(field.name().clone()).or_default().extend(values);
        }
    }
    // Integers have no NaN: before TA-Lib has a trend, it is 0.
    let unknown: Vec<bool> = columns["SUPERTREND.supertrend"].iter().map(|x| x.is_nan()).collect();
    let sides = columns.get_mut("SUPERTREND.trend").expect("two columns");
    let sides = sides.iter_mut().zip(unknown);
    sides.filter(|(_, unknown)| *unknown).for_each(|(side, _)| *side = f64::NAN);
    // TA-Lib's VWAP is of the typical price.
    let price = (0..columns["close"].len())
        .map(|i| (columns["high"][i] + columns["low"][i] + columns["close"][i]) / 3.0)
        .collect();
    columns.insert("typical".into(), price);
    Some(columns)
}

/// Differences between an output and TA-Lib's column, one line each kind.
fn compare(label: &str, ours: &[f64], theirs: &[f64]) -> Result<String, String> {
    assert_eq!(ours.len(), theirs.len());
    let first = theirs.iter().position(|x| !x.is_nan()).ok_or("TA-Lib gives nothing")?;
    let mut worst: f64 = 0.0;
    for (row, (&a, &b)) in ours.iter().zip(theirs).enumerate().skip(first) {
        let off = (a - b).abs() / b.abs().max(1.0);
        if off.is_nan() || off > 1e-9 {
            return Err(format!("{label}: row {row} (TA-Lib starts at {first}): {a}, not {b}"));
        }
        worst = worst.max(off);
    }
    let ours = ours.iter().position(|x| !x.is_nan()).unwrap_or(usize::MAX);
    Ok(format!("{label}: equal from row {first} on, ours starts at {ours}, off by {worst:.1e}"))
}

#[test]
fn equals_talib_from_its_first_row() {
    let Some(oracle) = oracle() else { return };
    let mut wrong = Vec::new();
    for (name, params, theirs) in pairs() {
        let spec = find(name).expect(name);
        let mut bank = spec.build(&params).expect(name);
        bank.reserve(1);
        let source = |input: &str| match (name, input) {
            ("vwap", "close") => "typical".to_owned(),
            _ => input.to_owned(),
        };
        let inputs: Vec<&[f64]> =
            spec.default_inputs().into_iter().map(|input| oracle[&source(input)].as_slice()).collect();
        let mut out = vec![Vec::new(); spec.outputs.len()];
        bank.update(&vec![0; inputs[0].len()], &inputs, &mut out);
        assert_eq!(theirs.len(), out.len(), "{name}");
        for ((ours, column), theirs) in spec.outputs.iter().zip(&out).zip(theirs) {
            if theirs.is_empty() {
                continue;
            }
            match compare(&format!("{ours} = {theirs}"), column, &oracle[theirs]) {
                Ok(line) => println!("{line}"),
                Err(line) => wrong.push(line),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
