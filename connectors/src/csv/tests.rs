use std::io::Write;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, TimestampNanosecondType};
use serde_json::json;

use super::*;
use crate::conformance::{Drive, another_input_is_refused, check_source, read_source};

async fn plan(with: serde_json::Value, base: &Path) -> Result<SourcePlan, Vec<String>> {
    let cx = PlanContext { job: "j".into(), node: "n".into(), base: base.into(), clock: Default::default() };
    let params = serde_json::from_value(with).unwrap();
    Csv::plan(params, &cx).await.map_err(|p| p.iter().map(|p| p.to_string()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_records_are_refused_with_their_line_and_the_good_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let text = "more,symbol,ts,price,note\r\n\
        x,A,1,1.5,\r\n\
        x,A,soon,1.5,\r\n\
        x,\"B, C\",2024-01-02T03:04:05.5Z,2.5,\"two\nlines\"\r\n\
        x,A,3\r\n\
        x,,4,1.0,n\r\n\
        x,A,2024-01-02 03:04:06,much,\"a\nb\"\r\n\
        x,A,5,0.5,end";
    let path = folder.path().join("a.csv");
    std::fs::write(&path, text).unwrap();
    let schema =
        json!({"ts": "timestamp", "symbol": "symbol", "price": "f64", "note": "string?", "absent": "i64?"});
    let plan =
        plan(json!({"url": "a.csv", "schema": schema, "time_unit": "s"}), folder.path()).await.unwrap();
    let read = &check_source(&plan).await[&0];
    assert_eq!(read.seqs, [0, 2, 6]);
    let ts = read.rows.column(0).as_primitive::<TimestampNanosecondType>().values().to_vec();
    assert_eq!(ts, [1_000_000_000, 1_704_164_645_500_000_000, 5_000_000_000]);
    let text: Vec<_> = read.rows.column(1).as_string::<i32>().iter().flatten().collect();
    assert_eq!(text, ["A", "B, C", "A"]);
    assert_eq!(
        read.rows.column(3).as_string::<i32>().iter().collect::<Vec<_>>(),
        [None, Some("two\nlines"), Some("end")]
    );
    assert_eq!(read.rows.column(4).null_count(), 3);
    let file = path.display();
    let rejects: Vec<(u64, String, String)> = read
        .rejects
        .iter()
        .map(|r| (r.seq, String::from_utf8(r.raw.clone()).unwrap(), r.reason.clone()))
        .collect();
    let expected = [
        (
            1,
            "x,A,soon,1.5,",
            format!("line 3 of `{file}`: column `ts`: `soon` is not a time such as 2024-01-02T03:04:05Z"),
        ),
        (3, "x,A,3", format!("line 6 of `{file}`: 3 values, expected 5")),
        (4, "x,,4,1.0,n", format!("line 7 of `{file}`: column `symbol` is empty")),
        (
            5,
            "x,A,2024-01-02 03:04:06,much,\"a\nb\"",
            format!("line 8 of `{file}`: column `price`: `much` is not a number"),
        ),
    ];
    assert_eq!(rejects, expected.map(|(seq, raw, reason)| (seq, raw.to_owned(), reason)));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_delimiters_and_damage() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path();
    std::fs::write(base.join("a.csv"), "ts;price\n1;2\n").unwrap();
    let read = async |with| {
        let plan = plan(with, base).await.unwrap();
        read_source(&plan.source, &plan.columns, Drive::default()).await.map(|mut r| r.remove(&0).unwrap())
    };
    let schema = json!({"ts": "timestamp", "price": "f64"});
    let wrong = read(json!({"url": "a.csv", "schema": schema})).await.unwrap_err().to_string();
    assert!(wrong.contains("a.csv` lacks ts, price; it has ts;price"), "{wrong}");
    assert_eq!(read(json!({"url": "a.csv", "schema": schema, "delimiter": ";"})).await.unwrap().seqs, [0]);
    let bare =
        read(json!({"url": "a.csv", "schema": schema, "delimiter": ";", "header": false})).await.unwrap();
    assert_eq!((bare.seqs.len(), bare.rejects.len()), (1, 1));
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(b"ts,price\n").unwrap();
    (0..20_000).for_each(|i| writeln!(gz, "{i},{}", i * 7919 % 1009).unwrap());
    let gz = gz.finish().unwrap();
    std::fs::write(base.join("b.csv.gz"), &gz).unwrap();
    assert_eq!(read(json!({"url": "b.csv.gz", "schema": schema})).await.unwrap().seqs.len(), 20_000);
    std::fs::write(base.join("b.csv.gz"), &gz[..gz.len() / 2]).unwrap();
    let cut = read(json!({"url": "b.csv.gz", "schema": schema})).await.unwrap_err().to_string();
    assert!(cut.contains("b.csv.gz`: the file is damaged or cut off"), "{cut}");
    let problems = plan(json!({"url": "none.csv", "schema": {"ts": "tme"}, "delimiter": "é"}), base)
        .await
        .err()
        .unwrap();
    assert_eq!(problems.len(), 3, "{problems:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn six_real_days_of_quotes() {
    let Some(data) = crate::files::real_data() else { return };
    let with = json!({"url": "fx/eurusd_quotes_*.csv.gz", "schema": {"ts": "timestamp", "symbol": "symbol", "bid": "f64", "ask": "f64"}});
    let plan = plan(with, &data).await.unwrap();
    let read = read_source(&plan.source, &plan.columns, Drive::default()).await.unwrap().remove(&0).unwrap();
    assert!(read.rejects.is_empty() && read.seqs.len() > 100_000, "{}", read.seqs.len());
    let values =
        |name: &str| read.rows.column_by_name(name).unwrap().as_primitive::<Float64Type>().values().to_vec();
    // FXCM quotes are crossed by a pip now and then.
    assert!(
        values("bid").iter().zip(values("ask")).all(|(b, a)| (1.3..1.5).contains(b) && (a - b).abs() < 0.01)
    );
    // The first line of the first file, read by eye.
    assert_eq!((values("bid")[0], values("ask")[0]), (1.38727, 1.38729));
    let mut lines = 0;
    for entry in std::fs::read_dir(data.join("fx")).unwrap() {
        let file = flate2::read::GzDecoder::new(std::fs::File::open(entry.unwrap().path()).unwrap());
        lines += std::io::BufRead::lines(std::io::BufReader::new(file)).count() - 1;
    }
    assert_eq!(read.seqs.len(), lines);
}

/// A folder with files of `rows` each, with a header, as `name` says of each its price.
fn folder_of(files: &[(&str, usize, f64)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, rows, price) in files {
        let lines: String = (0..*rows).map(|i| format!("{:06},{price:.2}\n", i)).collect();
        let text = format!("ts,price\n{lines}");
        let path = folder.path().join(name);
        match name.ends_with(".gz") {
            true => {
                let file = std::fs::File::create(path).unwrap();
                let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::default());
                gz.write_all(text.as_bytes()).unwrap();
                gz.finish().unwrap();
            }
            false => std::fs::write(path, text).unwrap(),
        }
    }
    folder
}

async fn prices(folder: &tempfile::TempDir) -> SourcePlan {
    let with = json!({"url": "*.csv*", "schema": {"ts": "timestamp", "price": "f64"}});
    plan(with, folder.path()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_folder_is_refused_though_its_files_have_the_same_names_and_sizes() {
    let drive = || Drive { chunk_rows: 700, ..Drive::default() };
    let a = folder_of(&[("a.csv", 3000, 1.0), ("b.csv", 3000, 1.5)]);
    let same_names = folder_of(&[("a.csv", 3000, 2.0), ("b.csv", 3000, 2.5)]);
    another_input_is_refused(&prices(&a).await, &prices(&same_names).await, drive(), &["had been read"])
        .await;
    let other_names = folder_of(&[("x.csv", 3000, 1.0), ("y.csv", 3000, 1.5)]);
    let names = ["x.csv", "no longer there"];
    another_input_is_refused(&prices(&a).await, &prices(&other_names).await, drive(), &names).await;
    let (a, b) = (folder_of(&[("a.csv.gz", 3000, 1.0)]), folder_of(&[("a.csv.gz", 3000, 2.0)]));
    another_input_is_refused(&prices(&a).await, &prices(&b).await, drive(), &["a.csv.gz", "had been read"])
        .await;
}

/// Given a position in the second of two files, what may and what may not have happened to the files since.
#[tokio::test(flavor = "multi_thread")]
async fn files_may_be_added_behind_and_the_last_may_grow_but_no_row_is_passed_over() {
    let files = [("b.csv", 1000, 1.0), ("c.csv", 1000, 1.5)];
    let folder = folder_of(&files);
    let read = prices(&folder).await;
    let read = read_source(&read.source, &read.columns, Drive { chunk_rows: 300, ..Drive::default() }).await;
    let (_, _, position) =
        read.unwrap()[&0].positions.iter().find(|(rows, ..)| *rows > 1000).unwrap().clone();
    let go_on = async |folder: &tempfile::TempDir| {
        let planned = prices(folder).await;
        let restored = std::collections::BTreeMap::from([(0, position.clone())]);
        let read = read_source(&planned.source, &planned.columns, Drive { restored, ..Drive::default() });
        read.await.map(|mut read| read.remove(&0).unwrap().seqs).map_err(|e| e.to_string())
    };
    let rest = go_on(&folder).await.unwrap();
    let first = rest[0];
    assert_eq!(rest, (first..2000).collect::<Vec<_>>());
    // A file behind is read, and one that is still being written is read on.
    let grown = folder_of(&[files[0], ("c.csv", 1200, 1.5), ("d.csv", 10, 3.0)]);
    assert_eq!(go_on(&grown).await.unwrap(), (first..2210).collect::<Vec<_>>());
    for (now, reason) in [
        (vec![("b.csv", 1001, 1.0), files[1]], "was added would be skipped"),
        (vec![("b.csv", 999, 1.0), files[1]], "cut short or replaced"),
        (vec![("b.csv", 1000, 9.0), files[1]], "bytes differ"),
        (vec![files[0], ("c.csv", 1000, 9.0)], "bytes differ"),
        (vec![files[0], ("c.csv", 100, 1.5)], "cut short or replaced"),
        (vec![("a.csv", 10, 1.0), files[0], files[1]], "was removed or added"),
        (vec![files[1]], "was removed or added"),
        (vec![("a.csv", 1000, 1.0), files[1]], "`b.csv` had been read, where now"),
        (vec![files[0]], "`c.csv` was being read and is no longer there"),
    ] {
        let error = go_on(&folder_of(&now)).await.unwrap_err();
        assert!(error.contains(reason) && error.contains("--from none"), "{now:?}: {error}");
    }
    // A checkpoint of a version that did not note the files still counts.
    let mut old = position.clone();
    old.as_object_mut().unwrap().remove("input");
    let planned = prices(&folder).await;
    let restored = std::collections::BTreeMap::from([(0, old)]);
    let drive = Drive { restored, ..Drive::default() };
    assert_eq!(read_source(&planned.source, &planned.columns, drive).await.unwrap()[&0].seqs, rest);
}
