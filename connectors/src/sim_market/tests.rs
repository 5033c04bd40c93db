use std::path::Path;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, TimestampNanosecondType};
use serde_json::json;
use tidemill_engine::clock::Clock;

use super::*;
use crate::conformance::{Drive, another_input_is_refused, check_source, check_stop, read_source};

async fn plan(with: serde_json::Value) -> Result<SourcePlan, Vec<String>> {
    let base = Path::new("/").to_owned();
    let cx = PlanContext { job: "job".into(), node: "n".into(), base, clock: Clock::System };
    let params = serde_json::from_value(with).unwrap();
    SimMarket::plan(params, &cx).await.map_err(|p| p.iter().map(|p| p.to_string()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_market_goes_on_where_it_stood() {
    for emit in ["trades", "quotes", "both"] {
        let plan = plan(json!({"seed": 3, "rows": 20_000, "emit": emit, "rate": 1000})).await.unwrap();
        let read = &check_source(&plan).await[&0];
        assert_eq!(read.seqs, (0..20_000).collect::<Vec<u64>>());
        let ts = read.rows.column(0).as_primitive::<TimestampNanosecondType>().values();
        assert!(ts.is_sorted());
        // 4 symbols, 1000 events a second each: 20 000 events last about 5 s.
        let lasted = (ts[19_999] - ts[0]) as f64 / 1e9;
        assert!((4.5..5.5).contains(&lasted), "{lasted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_market_is_refused_and_a_longer_one_is_not() {
    let market = json!({"seed": 3, "rows": 5000, "rate": 1000});
    let with = |name: &str, value: serde_json::Value| {
        let mut with = market.clone();
        with[name] = value;
        with
    };
    let one = plan(market.clone()).await.unwrap();
    let drive = || Drive { chunk_rows: 900, ..Drive::default() };
    let seed = plan(with("seed", json!(4))).await.unwrap();
    another_input_is_refused(&one, &seed, drive(), &["seed 3", "seed 4"]).await;
    for (name, value) in [
        ("rate", json!(10)),
        ("symbols", json!(["A", "B", "C", "D"])),
        ("start", json!("2025-01-01T00:00:00Z")),
        ("price", json!(50)),
    ] {
        let other = plan(with(name, value)).await.unwrap();
        another_input_is_refused(&one, &other, drive(), &["other settings"]).await;
    }
    let read = read_source(&one.source, &one.columns, drive()).await.unwrap();
    let restored = [(0, read[&0].positions[2].2.clone())].into();
    let longer = plan(with("rows", json!(6000))).await.unwrap();
    let rest = read_source(&longer.source, &longer.columns, Drive { restored, ..drive() }).await.unwrap();
    assert_eq!(rest[&0].seqs, (2700..6000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_move_as_the_regime_says() {
    let regimes = json!([{"name": "only", "volatility": 0.02, "lasts": "1h"}]);
    let plan = plan(
        json!({"symbols": ["X"], "rate": 1, "duration": "1d", "regimes": regimes, "spread": 0, "tick": 1e-6}),
    )
    .await
    .unwrap();
    let read = read_source(&plan.source, &plan.columns, Drive::default()).await.unwrap();
    let price =
        read[&0].rows.column_by_name("price").unwrap().as_primitive::<Float64Type>().values().to_vec();
    let returns: Vec<f64> = price.windows(2).map(|w| (w[1] / w[0]).ln()).collect();
    let n = returns.len() as f64;
    let mean = returns.iter().sum::<f64>() / n;
    let deviation = (returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / n * n).sqrt();
    assert!((deviation / 0.02 - 1.0).abs() < 0.03, "{deviation}");
    assert!((n / 86_400.0 - 1.0).abs() < 0.02, "{n}");
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_are_on_the_grid_and_the_book_is_never_crossed() {
    let plan = plan(json!({"emit": "quotes", "rows": 50_000, "count": 3, "price": 2.0})).await.unwrap();
    let rows =
        read_source(&plan.source, &plan.columns, Drive::default()).await.unwrap().remove(&0).unwrap().rows;
    let values =
        |name: &str| rows.column_by_name(name).unwrap().as_primitive::<Float64Type>().values().to_vec();
    for (bid, ask) in values("bid").into_iter().zip(values("ask")) {
        assert!(bid > 0.0 && bid < ask, "{bid} {ask}");
        assert_eq!((bid * 100.0).round() / 100.0, bid);
        assert_eq!((ask * 100.0).round() / 100.0, ask);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn seeds_differ_and_equal_seeds_do_not() {
    let rows = async |seed: u64| {
        let plan = plan(json!({"seed": seed, "rows": 5000})).await.unwrap();
        read_source(&plan.source, &plan.columns, Drive::default()).await.unwrap().remove(&0).unwrap().rows
    };
    assert!(rows(1).await == rows(1).await);
    assert!(rows(1).await != rows(2).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_or_slow_market_stops_when_asked() {
    check_stop(&plan(json!({})).await.unwrap().source).await;
    check_stop(&plan(json!({"rate": 0.001, "pace": "realtime"})).await.unwrap().source).await;
    let paced = plan(json!({"pace": "1000x", "duration": "1m"})).await.unwrap();
    let fast = plan(json!({"duration": "1m"})).await.unwrap();
    assert!(paced.bounded && !plan(json!({})).await.unwrap().bounded);
    let read = async |p: SourcePlan| {
        read_source(&p.source, &p.columns, Drive::default()).await.unwrap().remove(&0).unwrap()
    };
    assert!(read(paced).await.rows == read(fast).await.rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_are_all_named() {
    let with = json!({"rate": 0, "tick": -1, "pace": "fast", "symbols": [], "end": "2000-01-01T00:00:00Z", "regimes": []});
    let problems = plan(with).await.err().unwrap();
    let paths: Vec<&str> = problems.iter().map(|p| p.split(':').next().unwrap()).collect();
    assert_eq!(paths, ["symbols", "end", "rate", "tick", "regimes", "pace"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instrument_has_a_price_a_tick_and_a_lot_of_its_own() {
    let instruments = json!({
        "EURUSD": {"price": 1.08, "tick": 0.00001, "lot": 1000, "volatility": 0.1},
        "BTC": {"price": 60000, "lot": 0.001}
    });
    let with =
        json!({"symbols": ["BTC", "EURUSD", "SPY"], "price": 470, "rows": 3000, "instruments": instruments});
    let rows = read_source(&plan(with).await.unwrap().source, &columns(Emit::Trades), Drive::default())
        .await
        .unwrap()
        .remove(&0)
        .unwrap()
        .rows;
    let symbols = arrow::compute::cast(rows.column_by_name("symbol").unwrap(), &DataType::Utf8).unwrap();
    let value =
        |name: &str| rows.column_by_name(name).unwrap().as_primitive::<Float64Type>().values().to_vec();
    for ((symbol, price), size) in symbols.as_string::<i32>().iter().zip(value("price")).zip(value("size")) {
        let (first, per_unit, lots) = match symbol.unwrap() {
            "BTC" => (60_000.0, 100.0, size * 1000.0),
            "EURUSD" => (1.08, 100_000.0, size / 1000.0),
            _ => (470.0, 100.0, size),
        };
        assert!((price / first - 1.0_f64).abs() < 0.1, "{symbol:?} at {price}");
        assert_eq!((price * per_unit).round() / per_unit, price, "{symbol:?}");
        assert!((lots - lots.round()).abs() < 1e-9 && lots >= 1.0, "{symbol:?}: {size}");
    }
}

#[tokio::test]
async fn wrong_instruments_are_refused_by_their_place() {
    let of = |own: serde_json::Value| json!({"symbols": ["SPY"], "instruments": own});
    let unknown = plan(of(json!({"SPX": {}}))).await.err().unwrap().join("; ");
    assert!(unknown.contains("instruments.SPX") && unknown.contains("SPY"), "{unknown}");
    let tick = plan(of(json!({"SPY": {"price": 1, "tick": 2}}))).await.err().unwrap().join("; ");
    assert!(tick.contains("instruments.SPY.tick"), "{tick}");
}
