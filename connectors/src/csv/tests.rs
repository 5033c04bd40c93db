use std::io::Write;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, TimestampNanosecondType};
use serde_json::json;

use super::*;
use crate::conformance::{Drive, check_source, read_source};

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
