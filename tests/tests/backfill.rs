//! `tidemill backfill`, the binary, against venues that speak the documented REST over a synthetic history, and over
//! real files. The oracle is the history itself, or the files read back with Arrow alone.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidemill_tests::{Rng, binary, data, skipped, unique, wait_for};

#[path = "backfill/venue.rs"]
mod venue;
use venue::{Faults, Trade, Venue};

const DAY_MS: i64 = 86_400_000;
/// 2024-01-02.
const START_MS: i64 = 1_704_153_600_000;

/// Runs the command line and waits for its end.
fn backfill(args: &[&str]) -> Output {
    Command::new(binary()).arg("backfill").args(args).output().unwrap()
}

fn well(args: &[&str]) -> String {
    let output = backfill(args);
    let text = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{args:?}: {text}");
    text
}

fn fails(args: &[&str]) -> String {
    let output = backfill(args);
    let text = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
    text
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every file under a folder, its size and its bytes' hash.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.clone(), std::fs::read(path).unwrap());
            }
        }
    }
    found
}

/// The rows of a dataset that count: the files its log has added.
fn rows(archive: &Path, dataset: &str) -> Vec<RecordBatch> {
    let log = archive.join(dataset).join("_tidemill");
    let mut live = std::collections::BTreeSet::new();
    let mut versions: Vec<PathBuf> = match std::fs::read_dir(&log) {
        Ok(entries) => entries.map(|e| e.unwrap().path()).collect(),
        Err(_) => return Vec::new(),
    };
    versions.retain(|p| {
        let name = p.file_name().unwrap().to_str().unwrap();
        name.ends_with(".json") && name.strip_suffix(".json").unwrap().bytes().all(|b| b.is_ascii_digit())
    });
    versions.sort();
    for version in versions {
        let commit: serde_json::Value = serde_json::from_slice(&std::fs::read(version).unwrap()).unwrap();
        for action in commit["actions"].as_array().unwrap() {
            if let Some(path) = action["add"]["path"].as_str() {
                live.insert(path.to_owned());
            }
            if let Some(path) = action["remove"]["path"].as_str() {
                live.remove(path);
            }
        }
    }
    let mut rows = Vec::new();
    for path in live {
        let file = std::fs::File::open(archive.join(dataset).join(path)).unwrap();
        rows.extend(
            ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(|b| b.unwrap()),
        );
    }
    rows
}

fn ints(batch: &RecordBatch, name: &str) -> Vec<i64> {
    let column =
        batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name} in {:?}", batch.schema()));
    let column = arrow::compute::cast(column, &DataType::Int64).unwrap();
    column.as_primitive::<Int64Type>().values().to_vec()
}

fn floats(batch: &RecordBatch, name: &str) -> Vec<f64> {
    let column = arrow::compute::cast(batch.column_by_name(name).unwrap(), &DataType::Float64).unwrap();
    let column = column.as_primitive::<Float64Type>();
    assert_eq!(column.null_count(), 0, "{name}");
    column.values().to_vec()
}

fn texts(batch: &RecordBatch, name: &str) -> Vec<String> {
    let column = arrow::compute::cast(batch.column_by_name(name).unwrap(), &DataType::Utf8).unwrap();
    column.as_string::<i32>().iter().map(|t| t.unwrap_or("null").to_owned()).collect()
}

/// Trades of a symbol in a dataset, in order of id.
fn trades(archive: &Path, dataset: &str, symbol: &str) -> Vec<Trade> {
    let mut all = Vec::new();
    for batch in rows(archive, dataset) {
        let (ids, times) = (ints(&batch, "trade_id"), ints(&batch, "ts"));
        let (prices, sizes) = (floats(&batch, "price"), floats(&batch, "size"));
        let (sides, symbols) = (texts(&batch, "side"), texts(&batch, "symbol"));
        for i in 0..batch.num_rows() {
            if symbols[i] == symbol {
                all.push(Trade {
                    id: ids[i],
                    ns: times[i],
                    price: prices[i],
                    size: sizes[i],
                    taker_bought: sides[i] == "buy",
                });
            }
        }
    }
    all.sort_by_key(|t| t.id);
    all
}

fn between(history: &[Trade], from_ms: i64, to_ms: i64) -> Vec<Trade> {
    history.iter().copied().filter(|t| t.ns >= from_ms * 1_000_000 && t.ns < to_ms * 1_000_000).collect()
}

#[test]
fn every_venues_history_comes_whole_through_its_pages_and_faults() {
    let venue = Venue::start(Venue::history(1, START_MS, 3, 5000), Faults::some(7));
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().to_str().unwrap();
    // A day and a half: borders within days too.
    let common = [
        "--from",
        "2024-01-02T06:00:00Z",
        "--to",
        "2024-01-04",
        "--rest-url",
        &venue.url,
        "--into",
        into,
        "--rate",
        "500",
    ];
    let expected = between(&venue.trades, START_MS + 6 * 3_600_000, START_MS + 2 * DAY_MS);
    assert!(expected.len() > 8000);
    let with = |head: &[&str]| well(&[head, common.as_slice()].concat());
    with(&["binance", "trades", "--symbol", "BTCUSDT", "--dataset", "binance"]);
    assert_eq!(trades(folder.path(), "binance", "BTCUSDT"), expected);
    with(&["coinbase", "trades", "--symbol", "BTC-USD", "--dataset", "coinbase"]);
    assert_eq!(trades(folder.path(), "coinbase", "BTC-USD"), expected);
    // Aggregates: one a taker's order and price.
    with(&["binance", "agg-trades", "--market", "usdm", "--symbol", "BTCUSDT"]);
    let expected = between(&venue.aggregates(), START_MS + 6 * 3_600_000, START_MS + 2 * DAY_MS);
    assert_eq!(trades(folder.path(), "agg_trades", "BTCUSDT"), expected);
    assert!(venue.faults() > 10, "{} faults", venue.faults());
    // Kraken's pages go by nanoseconds, of which none has a thousand trades.
    let venue = Venue::start(Venue::history(2, START_MS, 3, 4900), Faults::some(8));
    let args = [
        &["kraken", "trades", "--symbol", "BTC/USD", "--dataset", "kraken", "--from", "2024-01-02T06:00:00Z"]
            [..],
        &["--to", "2024-01-04", "--rest-url", &venue.url, "--into", into, "--rate", "500"],
    ]
    .concat();
    well(&args);
    let expected = between(&venue.trades, START_MS + 6 * 3_600_000, START_MS + 2 * DAY_MS);
    assert_eq!(trades(folder.path(), "kraken", "BTC/USD"), expected);
}

#[test]
fn klines_come_whole_and_bars_that_are_missing_are_gaps() {
    let mut history = Venue::history(2, START_MS, 2, 5000);
    // The venue was down for a quarter of an hour.
    let (down, up) = (START_MS + 10 * 3_600_000, START_MS + 10 * 3_600_000 + 900_000);
    history.retain(|t| t.ns < down * 1_000_000 || t.ns >= up * 1_000_000);
    let venue = Venue::start(history, Faults::none());
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().to_str().unwrap();
    let args = [
        "binance",
        "klines",
        "--symbol",
        "BTCUSDT",
        "--interval",
        "1m",
        "--from",
        "2024-01-02",
        "--to",
        "2024-01-04",
        "--rest-url",
        &venue.url,
        "--into",
        into,
    ];
    let told = well(&args);
    let expected = venue.klines(60_000);
    let mut got = Vec::new();
    for batch in rows(folder.path(), "bars_1m") {
        let (start, ts) = (ints(&batch, "start"), ints(&batch, "ts"));
        let columns = ["open", "high", "low", "close", "volume"].map(|c| floats(&batch, c));
        let n = ints(&batch, "trades");
        for i in 0..batch.num_rows() {
            assert_eq!(ts[i], start[i] + 60_000_000_000, "a bar stands at its end");
            got.push((start[i] / 1_000_000, [0, 1, 2, 3, 4].map(|c| columns[c][i]), n[i]));
        }
    }
    got.sort_by_key(|b| b.0);
    // `ts` goes from the start of the first day up to, not including, that of the third: the bar that ends then is left.
    let expected: Vec<_> = expected.into_iter().filter(|b| b.0 + 60_000 < START_MS + 2 * DAY_MS).collect();
    assert_eq!(got, expected);
    assert!(told.contains("15 intervals have no bar from 2024-01-02T10:01:00Z"), "{told}");
}

#[test]
fn a_second_run_asks_for_nothing_and_changes_nothing() {
    let venue = Venue::start(Venue::history(3, START_MS, 3, 2000), Faults::none());
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().to_str().unwrap();
    let run = |from: &str, to: &str, more: &[&str]| {
        let args = [
            &["binance", "agg-trades", "--symbol", "BTCUSDT,ETHUSDT", "--from", from, "--to", to][..],
            &["--rest-url", &venue.url, "--into", into],
            more,
        ]
        .concat();
        well(&args)
    };
    run("2024-01-02", "2024-01-04", &[]);
    let (before, asked) = (files(folder.path()), venue.requests().len());
    let told = run("2024-01-02", "2024-01-04", &[]);
    assert_eq!(venue.requests().len(), asked);
    assert!(files(folder.path()) == before, "a file has changed");
    assert!(
        told.lines().any(|l| l.starts_with(" agg_trades") && l.split_whitespace().nth(4) == Some("4")),
        "{told}"
    );
    // More than what is there: only the rest is asked for.
    run("2024-01-03T12:00:00Z", "2024-01-05", &[]);
    let new = &venue.requests()[asked..];
    let by_time: Vec<&String> = new.iter().filter(|r| r.contains("startTime=")).collect();
    assert!(
        !by_time.is_empty()
            && by_time.iter().all(|r| r.contains(&format!("startTime={}", START_MS + 2 * DAY_MS))),
        "{by_time:?}"
    );
    let all = venue.aggregates();
    for symbol in ["BTCUSDT", "ETHUSDT"] {
        assert_eq!(trades(folder.path(), "agg_trades", symbol), all);
    }
    // With --force everything is fetched again, and is there once.
    let asked = venue.requests().len();
    run("2024-01-02T06:00:00Z", "2024-01-05", &["--force"]);
    assert!(venue.requests().len() > asked + 6);
    assert_eq!(trades(folder.path(), "agg_trades", "BTCUSDT"), all);
}

#[test]
fn killed_at_seeded_instants_it_goes_on_and_is_equal() {
    let venue = Venue::start(Venue::history(4, START_MS, 6, 1500), Faults::slow(Duration::from_millis(15)));
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().to_str().unwrap();
    let args = [
        "backfill",
        "binance",
        "trades",
        "--symbol",
        "BTCUSDT",
        "--from",
        "2024-01-02",
        "--to",
        "2024-01-08",
        "--rest-url",
        &venue.url,
        "--into",
        into,
        "--quiet",
    ];
    let mut rng = Rng(11);
    let (mut kills, mut ended) = (0, false);
    while !ended {
        let mut child =
            Command::new(binary()).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The last runs are left alone, so that a slow machine ends too.
        if kills < 12 {
            std::thread::sleep(Duration::from_millis(rng.within(20..600)));
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                kills += 1;
                child.wait().unwrap();
                continue;
            }
        }
        ended = child.wait().unwrap().success();
        assert!(ended);
    }
    assert!(kills > 0);
    assert_eq!(trades(folder.path(), "trades", "BTCUSDT"), *venue.trades);
    // What was committed was not asked for again: the first page of a day comes once more only after a kill.
    let mut days = BTreeMap::<i64, usize>::new();
    for request in venue.requests() {
        if let Some(ms) = request.split("startTime=").nth(1) {
            let ms: i64 = ms.split('&').next().unwrap().parse().unwrap();
            *days.entry((ms - START_MS) / DAY_MS).or_default() += 1;
        }
    }
    let again: usize = days.values().map(|n| n - 1).sum();
    assert!(days.len() == 6 && again <= kills, "{days:?} after {kills} kills");
}

#[test]
fn interrupted_it_ends_the_range_and_says_so() {
    let venue = Venue::start(Venue::history(5, START_MS, 20, 1500), Faults::slow(Duration::from_millis(60)));
    let folder = tempfile::tempdir().unwrap();
    let args = [
        "backfill",
        "binance",
        "agg-trades",
        "--symbol",
        "BTCUSDT",
        "--from",
        "2024-01-02",
        "--to",
        "2024-01-22",
        "--rest-url",
        &venue.url,
        "--into",
        folder.path().to_str().unwrap(),
    ];
    let child =
        Command::new(binary()).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while venue.requests().len() < 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    let told = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("ranges are left: stopped"), "{told}");
    let got = trades(folder.path(), "agg_trades", "BTCUSDT");
    let days = got.len() as f64 / venue.aggregates().len() as f64 * 20.0;
    let last = got.last().map_or(START_MS, |t| t.ns / 1_000_000);
    let whole =
        between(&venue.aggregates(), START_MS, (last - START_MS) / DAY_MS * DAY_MS + DAY_MS + START_MS);
    assert!(days < 19.0 && got == whole, "{days} days");
}

#[test]
fn a_ban_stops_everything_and_a_refusal_only_its_symbol() {
    let history = Venue::history(6, START_MS, 1, 500);
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().to_str().unwrap();
    let args = |url: &str| {
        [
            "binance",
            "agg-trades",
            "--symbol",
            "NONE,BTCUSDT",
            "--from",
            "2024-01-02",
            "--to",
            "2024-01-03",
            "--rest-url",
            url,
            "--into",
            into,
        ]
        .map(str::to_owned)
    };
    let banned = Venue::start(history.clone(), Faults::ban());
    let list = args(&banned.url);
    let told = fails(&list.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(
        told.contains("has banned this address for 120 s (HTTP 418)") && told.contains("1 ranges are left"),
        "{told}"
    );
    assert_eq!(banned.requests().len(), 1, "not asked again");
    let venue = Venue::start(history, Faults::none());
    let list = args(&venue.url);
    let told = fails(&list.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(told.contains("Invalid symbol.") && told.contains("NONE 2024-01-02:"), "{told}");
    assert_eq!(trades(folder.path(), "agg_trades", "BTCUSDT"), venue.aggregates());
}

#[test]
fn holes_in_ids_are_told_and_kept_in_the_log() {
    let mut history = Venue::history(8, START_MS, 2, 1000);
    let all = history.len();
    // Within a day, and at midnight.
    let midnight = history.iter().position(|t| t.ns >= (START_MS + DAY_MS) * 1_000_000).unwrap();
    let gone = [history[100].id, history[midnight].id];
    history.drain(midnight..midnight + 3);
    history.remove(100);
    assert_eq!(history.len(), all - 4);
    let venue = Venue::start(history, Faults::none());
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().to_str().unwrap();
    let told = well(&[
        "coinbase",
        "trades",
        "--symbol",
        "BTC-USD",
        "--from",
        "2024-01-02",
        "--to",
        "2024-01-04",
        "--rest-url",
        &venue.url,
        "--into",
        into,
        "--rate",
        "500",
    ]);
    assert_eq!(trades(folder.path(), "trades", "BTC-USD"), *venue.trades);
    let reasons = [
        format!("trade_id {} is missing", gone[0]),
        format!("trade_id {} to {} are missing (3)", gone[1], gone[1] + 2),
    ];
    let log: String = files(&folder.path().join("trades/_tidemill")).values().map(|b| text(b)).collect();
    for reason in reasons {
        assert!(told.contains(&reason) && log.contains(&reason), "{reason}: {told}");
    }
    // An empty day is covered, and not asked for again.
    let empty = [
        "kraken",
        "trades",
        "--symbol",
        "BTC/USD",
        "--from",
        "2023-01-02",
        "--to",
        "2023-01-03",
        "--rest-url",
        &venue.url,
        "--into",
        into,
        "--dataset",
        "empty",
    ];
    well(&empty);
    let asked = venue.requests().len();
    well(&empty);
    assert_eq!(venue.requests().len(), asked);
}

/// A zip as Binance publishes it.
fn dump(folder: &Path, name: &str, csv: &str) -> PathBuf {
    let path = folder.join(format!("{name}.zip"));
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    zip.start_file(format!("{name}.csv"), zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(csv.as_bytes()).unwrap();
    zip.finish().unwrap();
    path
}

#[test]
fn dumps_join_rest_and_damaged_ones_are_told_alone() {
    let venue = Venue::start(Venue::history(9, START_MS, 5, 2000), Faults::none());
    let (folder, zips) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (into, from) = (folder.path().to_str().unwrap(), zips.path().to_str().unwrap());
    let day = |i: i64| between(&venue.trades, START_MS + i * DAY_MS, START_MS + (i + 1) * DAY_MS);
    let lines = |trades: &[Trade], per_ms: i64| -> String {
        trades
            .iter()
            .map(|t| {
                format!(
                    "{},{},{},1.0,{},{},True\n",
                    t.id,
                    t.price,
                    t.size,
                    t.ns / 1_000_000 * per_ms,
                    if t.taker_bought { "False" } else { "True" }
                )
            })
            .collect()
    };
    // Without a header in milliseconds; with one; in microseconds; one that is damaged; one with a wrong header.
    let first = dump(zips.path(), "BTCUSDT-trades-2024-01-02", &lines(&day(0), 1));
    let header = "id,price,qty,quote_qty,time,is_buyer_maker,is_best_match\n";
    dump(zips.path(), "BTCUSDT-trades-2024-01-03", &(header.to_owned() + &lines(&day(1), 1)));
    dump(zips.path(), "BTCUSDT-trades-2024-01-04", &lines(&day(2), 1000));
    let bad = dump(zips.path(), "BTCUSDT-trades-2024-01-05", &lines(&day(3), 1));
    let mut bytes = std::fs::read(&bad).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 20].fill(0xaa);
    std::fs::write(&bad, &bytes).unwrap();
    dump(zips.path(), "BTCUSDT-trades-2024-01-06", &("id,price,when\n".to_owned() + &lines(&day(4), 1)));
    let args = ["binance", "dump", "--from-path", from, "--into", into];
    let told = fails(&args);
    assert!(told.contains("BTCUSDT-trades-2024-01-05.zip` is damaged"), "{told}");
    assert!(told.contains("lacks qty, time, is_buyer_maker; it has id, price, when"), "{told}");
    assert_eq!(
        trades(folder.path(), "trades", "BTCUSDT"),
        between(&venue.trades, START_MS, START_MS + 3 * DAY_MS)
    );
    // REST brings the rest, and nothing that the dumps have brought.
    well(&[
        "binance",
        "trades",
        "--symbol",
        "BTCUSDT",
        "--from",
        "2024-01-02",
        "--to",
        "2024-01-07",
        "--rest-url",
        &venue.url,
        "--into",
        into,
    ]);
    assert_eq!(trades(folder.path(), "trades", "BTCUSDT"), *venue.trades);
    let asked = venue.requests();
    assert!(asked.iter().filter(|r| r.contains("startTime=")).count() == 2, "{asked:?}");
    // A checksum that does not hold.
    std::fs::write(format!("{}.CHECKSUM", first.display()), format!("{}  x.zip\n", "0".repeat(64))).unwrap();
    let other = tempfile::tempdir().unwrap();
    let told = fails(&[
        "binance",
        "dump",
        "--from-path",
        first.to_str().unwrap(),
        "--into",
        other.path().to_str().unwrap(),
    ]);
    assert!(told.contains("its .CHECKSUM says 0000"), "{told}");
}

#[test]
fn files_with_faults_are_told_and_the_others_go_on() {
    let (folder, given) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let into = folder.path().to_str().unwrap();
    let write = |name: &str, text: &str| std::fs::write(given.path().join(name), text).unwrap();
    write(
        "a.csv",
        "Date,Price,Size\n2024-01-02 10:00:00,1.5,2\n2024-01-02 10:00:01,x,2\n2024-01-02 10:00:02,2.5,3\n2024-01-02 10:00:03,3.5,4\n",
    );
    write("b.csv", "Datum,Kurs,Size\n2024-01-02 10:00:00,1.5,2\n");
    write("c.csv", "Date,Price,Size\n2024-01-03 10:00:00,4.5,2\n");
    write("d.csv", "");
    let path = given.path().to_str().unwrap();
    let args =
        ["csv", path, "--schema", "trade", "--map", "price=Price,ts=Date", "--symbol", "X", "--into", into];
    let told = fails(&args);
    assert!(told.contains("line 3 of `") && told.contains("column `price`: `x` is not a number"), "{told}");
    assert!(
        told.contains("b.csv` lacks Date (for ts), Price (for price); it has Datum, Kurs, Size"),
        "{told}"
    );
    assert!(told.contains("d.csv` is empty"), "{told}");
    let mut prices: Vec<f64> =
        rows(folder.path(), "trades").iter().flat_map(|b| floats(b, "price")).collect();
    prices.sort_by(f64::total_cmp);
    assert_eq!(prices, [1.5, 2.5, 3.5, 4.5]);
    // Mended, only what was missing is read.
    write("b.csv", "Date,Price,Size\n2024-01-04 10:00:00,5.5,2\n");
    std::fs::remove_file(given.path().join("d.csv")).unwrap();
    let told = well(&args);
    assert!(
        told.lines().any(|l| l.starts_with(" trades") && l.split_whitespace().nth(1) == Some("1")),
        "{told}"
    );
    // A truncated Parquet file.
    if let Some(data) = data() {
        let whole = std::fs::read(data.join("equities/trades_20131007.parquet")).unwrap();
        std::fs::write(given.path().join("t.parquet"), &whole[..whole.len() / 2]).unwrap();
        let cut = given.path().join("t.parquet");
        let told = fails(&[
            "parquet",
            cut.to_str().unwrap(),
            "--schema",
            "trade",
            "--into",
            into,
            "--dataset",
            "cut",
        ]);
        assert!(told.contains("t.parquet`: the file is damaged, or not Parquet"), "{told}");
    }
    // Yahoo's bars stand at the end of their day.
    write(
        "AAPL.csv",
        "Date,Open,High,Low,Close,Adj Close,Volume\n2024-01-02,1,2,0.5,1.5,1.4,100\n2024-01-03,1.5,2,1,1.75,1.6,200\n",
    );
    let yahoo = given.path().join("AAPL.csv");
    well(&["yahoo", yahoo.to_str().unwrap(), "--into", into]);
    let bars = rows(folder.path(), "bars_1d");
    let ends: Vec<i64> = bars.iter().flat_map(|b| ints(b, "ts")).collect();
    assert_eq!(ends, [(START_MS + DAY_MS) * 1_000_000, (START_MS + 2 * DAY_MS) * 1_000_000]);
    assert_eq!(bars.iter().flat_map(|b| texts(b, "symbol")).collect::<Vec<_>>(), ["AAPL", "AAPL"]);
    assert_eq!(bars.iter().flat_map(|b| floats(b, "adj_close")).collect::<Vec<_>>(), [1.4, 1.6]);
}

/// Rows, and sums of numbers that any order of rows has.
fn sums(batches: &[RecordBatch], names: &[&str]) -> (usize, Vec<i128>) {
    let mut sums = vec![0_i128; names.len()];
    for batch in batches {
        for (sum, name) in sums.iter_mut().zip(names) {
            let column = batch.column_by_name(name).unwrap();
            let bits: Vec<i128> = match column.data_type() {
                DataType::Float64 => floats(batch, name).iter().map(|v| i128::from(v.to_bits())).collect(),
                DataType::Utf8 | DataType::Dictionary(..) | DataType::LargeUtf8 | DataType::Utf8View => {
                    texts(batch, name).iter().map(|t| t.bytes().map(i128::from).sum()).collect()
                }
                _ => ints(batch, name).into_iter().map(i128::from).collect(),
            };
            *sum += bits.iter().sum::<i128>();
        }
    }
    (batches.iter().map(RecordBatch::num_rows).sum(), sums)
}

#[test]
fn real_days_of_trades_and_quotes_go_in_and_come_out() {
    let Some(data) = data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().to_str().unwrap();
    let glob = data.join("equities/trades_*.parquet").display().to_string();
    well(&["parquet", &glob, "--into", into, "--dataset", "equities", "--sort", "ts,seq"]);
    let mut given = Vec::new();
    for day in ["07", "08", "09", "10"] {
        let file = std::fs::File::open(data.join(format!("equities/trades_201310{day}.parquet"))).unwrap();
        given.extend(
            ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(|b| b.unwrap()),
        );
    }
    let names = ["ts", "seq", "symbol", "price", "size", "exchange", "condition", "suspicious"];
    let expected = sums(&given, &names);
    assert!(expected.0 > 2_300_000);
    assert_eq!(sums(&rows(folder.path(), "equities"), &names), expected);

    let glob = data.join("fx/*.csv.gz").display().to_string();
    let columns = "ts: timestamp, symbol: symbol, bid: f64, ask: f64";
    let args = ["csv", &glob, "--schema", columns, "--into", into, "--dataset", "fx"];
    well(&args);
    // The oracle: zcat and split.
    let (mut n, mut ts, mut bid) = (0, 0_i128, 0_i128);
    for entry in std::fs::read_dir(data.join("fx")).unwrap() {
        let unpacked = Command::new("zcat").arg(entry.unwrap().path()).output().unwrap();
        for line in text(&unpacked.stdout).lines().skip(1) {
            let values: Vec<&str> = line.split(',').collect();
            n += 1;
            ts += values[0].parse::<i128>().unwrap();
            bid += i128::from(values[2].parse::<f64>().unwrap().to_bits());
        }
    }
    assert_eq!(sums(&rows(folder.path(), "fx"), &["ts", "bid"]), (n, vec![ts, bid]));
    let before = files(folder.path());
    well(&args);
    assert!(files(folder.path()) == before, "a file has changed");
    // One month of minute bars whose times are starts.
    let bars = data.join("crypto/btc_perp_1m_2022-01.csv.gz");
    let args = [
        "csv",
        bars.to_str().unwrap(),
        "--schema",
        "bar",
        "--symbol",
        "BTC",
        "--every",
        "1m",
        "--into",
        into,
    ];
    well(&args);
    let bars = rows(folder.path(), "bars");
    let unpacked = Command::new("zcat").arg(data.join("crypto/btc_perp_1m_2022-01.csv.gz")).output().unwrap();
    assert_eq!(
        bars.iter().map(RecordBatch::num_rows).sum::<usize>(),
        text(&unpacked.stdout).lines().count() - 1
    );
    assert!(
        bars.iter().all(|b| ints(b, "ts").iter().zip(ints(b, "start")).all(|(t, s)| t - s == 60_000_000_000))
    );
}

#[test]
fn a_topic_comes_with_the_offsets_of_the_live_source() {
    use tidemill_connectors::kafka::Connection;
    use tidemill_connectors::kafka::admin::{Message, create_topic, produce};
    use tidemill_engine::row;
    let Some(brokers) = tidemill_tests::kafka() else { return };
    let topic = unique("backfill");
    let connection = Connection::plain(&brokers);
    let send = |range: std::ops::Range<i64>| {
        let messages = range.map(|i| Message {
            partition: Some((i % 2) as i32),
            payload: Some(match i {
                50 => b"{\"ts\":".to_vec(),
                _ => format!(
                    "{{\"ts\":{},\"symbol\":\"X\",\"price\":{i}.5,\"size\":1}}",
                    START_MS * 1_000_000 + i
                )
                .into_bytes(),
            }),
            timestamp_ms: Some(START_MS + i * 1000),
            ..Message::default()
        });
        wait_for(produce(&connection, &topic, messages.collect())).unwrap();
    };
    wait_for(create_topic(&connection, &topic, 2, &[])).unwrap();
    send(0..1000);
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().to_str().unwrap();
    let run = |more: &[&str]| {
        well(
            &[
                &[
                    "kafka",
                    "--brokers",
                    &brokers,
                    "--topic",
                    &topic,
                    "--schema",
                    "trade",
                    "--source",
                    "live",
                    "--into",
                    into,
                    "--dataset",
                    "t",
                ][..],
                more,
            ]
            .concat(),
        )
    };
    // Up to a time, then on to the end, then with what has come since.
    let told = run(&["--from", "2024-01-01", "--to", "2024-01-02T00:05:00Z"]);
    assert!(told.contains(&format!("{topic}/0 offset 25")), "{told}");
    let seen = || {
        let mut all = Vec::new();
        for batch in rows(folder.path(), "t") {
            let src = batch
                .column_by_name("_src")
                .unwrap()
                .as_primitive::<arrow::datatypes::UInt64Type>()
                .values()
                .to_vec();
            let (seqs, prices) = (ints(&batch, "_seq"), floats(&batch, "price"));
            all.extend((0..batch.num_rows()).map(|i| (src[i], seqs[i], prices[i])));
        }
        all.sort_by(|a, b| a.partial_cmp(b).unwrap());
        all
    };
    let expected = |n: i64| {
        let mut all: Vec<_> = (0..n)
            .filter(|i| *i != 50)
            .map(|i| (row::origin("live", (i % 2) as u32), i / 2, i as f64 + 0.5))
            .collect();
        all.sort_by(|a, b| a.partial_cmp(b).unwrap());
        all
    };
    assert_eq!(seen(), expected(300));
    run(&[]);
    assert_eq!(seen(), expected(1000));
    let before = files(folder.path());
    run(&[]);
    assert!(files(folder.path()) == before, "a file has changed");
    send(1000..1500);
    run(&[]);
    assert_eq!(seen(), expected(1500));
}

/// The Kafka test is skipped by its own word; this one only keeps the helper in use where there is no Kafka.
#[test]
fn wrong_arguments_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().to_str().unwrap();
    let told = fails(&["csv", "none_*.csv", "--schema", "trade", "--into", into]);
    assert!(told.contains("no file matches"), "{told}");
    let output = backfill(&[
        "binance",
        "klines",
        "--symbol",
        "X",
        "--interval",
        "7m",
        "--from",
        "2024-01-02",
        "--into",
        into,
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("`7m` is no interval of Binance's"));
    let told = fails(&["binance", "dump", "--from-path", "https://127.0.0.1:1", "--into", into]);
    assert!(told.contains("say --data, --symbol, --from and --to"), "{told}");
    let _ = skipped as fn(&str);
}
