use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::*;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::json;
use tidemill_engine::clock::Clock;

use super::*;
use crate::conformance::{
    Drive, PartitionRead, another_input_is_refused, check_source, read_source, unpacked,
};

async fn plan(with: serde_json::Value, base: &Path) -> Result<SourcePlan, Vec<String>> {
    let cx = PlanContext { job: "job".into(), node: "n".into(), base: base.into(), clock: Clock::System };
    let params = serde_json::from_value(with).unwrap();
    Parquet::plan(params, &cx).await.map_err(|p| p.iter().map(|p| p.to_string()).collect())
}

async fn rows(with: serde_json::Value, base: &Path) -> PartitionRead {
    let plan = plan(with, base).await.unwrap();
    let mut read = read_source(&plan.source, &plan.columns, Drive::default()).await.unwrap();
    read.remove(&0).unwrap()
}

/// A file of (ts, symbol, price), in row groups of `group` rows.
fn write(path: &Path, times: &[i64], symbol: &str, group: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let n = times.len();
    let batch = RecordBatch::try_from_iter([
        ("ts", row::ts_array(times.to_vec())),
        ("symbol", Arc::new(StringArray::from(vec![symbol; n])) as ArrayRef),
        ("price", Arc::new(Float64Array::from_iter_values((0..n).map(|i| i as f64))) as ArrayRef),
    ])
    .unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn column(read: &PartitionRead, name: &str) -> Vec<String> {
    let array = read.rows.column_by_name(name).unwrap();
    let text = arrow::compute::cast(array, &DataType::Utf8).unwrap();
    text.as_string::<i32>().iter().map(|v| v.unwrap_or("null").to_owned()).collect()
}

fn ts(read: &PartitionRead) -> Vec<i64> {
    let array = arrow::compute::cast(read.rows.column_by_name("ts").unwrap(), &DataType::Int64).unwrap();
    array.as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_files_merge_as_a_sort_by_time_then_name_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for (name, start, step, n) in
        [("c", 0, 3, 400), ("a", 100, 2, 300), ("b", 100, 2, 300), ("z", 5000, 1, 100), ("y", 699, 7, 30)]
    {
        let times: Vec<i64> = (0..n).map(|i| start + i * step).collect();
        write(&folder.path().join(format!("{name}.parquet")), &times, name, 64);
        expected.extend(times.iter().map(|t| (*t, name.to_owned())));
    }
    // The oracle: a stable sort of everything by (time, file name).
    expected.sort();
    let plan = plan(json!({"url": "."}), folder.path()).await.unwrap();
    let read = &check_source(&plan).await[&0];
    let got: Vec<(i64, String)> = ts(read).into_iter().zip(column(read, "symbol")).collect();
    assert_eq!(got, expected);
    assert_eq!(read.seqs, (0..expected.len() as u64).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_exact_and_resume_too() {
    let folder = tempfile::tempdir().unwrap();
    let second = 1_000_000_000;
    for (name, offset) in [("a", 0), ("b", 250)] {
        let times: Vec<i64> = (0..1000).map(|i| (i + offset) * second).collect();
        write(&folder.path().join(format!("{name}.parquet")), &times, name, 100);
    }
    let with = json!({"url": "*.parquet", "columns": ["symbol"], "from": "1970-01-01T00:05:50Z", "to": "1970-01-01T00:10:05Z"});
    let plan = plan(with, folder.path()).await.unwrap();
    assert_eq!(plan.columns.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["ts", "symbol"]);
    let read = &check_source(&plan).await[&0];
    let expected: Vec<i64> = (350..605).flat_map(|s| [s * second, s * second]).collect();
    assert_eq!(ts(read), expected);
    assert_eq!(column(read, "symbol")[..4], ["a", "b", "a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_order_of_name_keep_their_rows_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a.parquet"), &[5, 6], "a", 100);
    write(&folder.path().join("date=1970-01-01/b.parquet"), &[1, 9, 2], "b", 100);
    let plan = plan(json!({"url": "**/*.parquet", "order": "name"}), folder.path()).await.unwrap();
    assert_eq!(ts(&check_source(&plan).await[&0]), [5, 6, 1, 9, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_name_the_file_and_the_column() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path();
    let problems = async |with| plan(with, base).await.err().unwrap();
    let none = problems(json!({"url": "none_*.parquet"})).await;
    assert!(none[0].starts_with("url: no file matches `none_*.parquet`"), "{none:?}");
    write(&base.join("a.parquet"), &[1], "a", 10);
    let batch = RecordBatch::try_from_iter([
        ("ts", row::ts_array(vec![1])),
        ("symbol", Arc::new(StringArray::from(vec!["b"])) as ArrayRef),
        ("price", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
    ])
    .unwrap();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(base.join("b.parquet")).unwrap(), batch.schema(), None)
            .unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let differ = problems(json!({"url": "*.parquet"})).await;
    assert!(differ[0].contains("column `price` is i64 in") && differ[0].contains("b.parquet"), "{differ:?}");
    let with = json!({"url": "a.parquet", "columns": ["prise"], "from": "yesterday", "time": "when"});
    let many = problems(with).await;
    assert_eq!(many.len(), 3, "{many:?}");
    assert!(many[1].contains("did you mean `price`?"), "{many:?}");
    let column =
        problems(json!({"url": "a.parquet", "time": "symbol", "from": "2020-01-01T00:00:00Z"})).await;
    assert_eq!(
        column,
        ["time: column `symbol` is symbol, not a time (name the event time column, or use `order: name`)"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    match crate::files::real_data() {
        Some(data) => drop(std::fs::copy(data.join("equities/trades_20131007.parquet"), &path).unwrap()),
        None => write(&path, &(0..50_000).collect::<Vec<_>>(), "a", 10_000),
    }
    let whole = std::fs::read(&path).unwrap();
    // Cut off: the footer is gone, the plan says so.
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let cut = plan(json!({"url": "a.parquet"}), folder.path()).await.err().unwrap();
    assert!(
        cut[0].starts_with("url: cannot read `") && cut[0].contains("a.parquet`: the file is damaged"),
        "{cut:?}"
    );
    // Zeros in the middle: the footer is fine, the rows are not.
    let mut holed = whole.clone();
    let middle = holed.len() / 4..holed.len() * 3 / 4;
    holed[middle].fill(0);
    std::fs::write(&path, &holed).unwrap();
    let planned = plan(json!({"url": "a.parquet"}), folder.path()).await.unwrap();
    let error = read_source(&planned.source, &planned.columns, Drive::default()).await.unwrap_err();
    assert!(
        matches!(&error, ConnectorError::Fatal(m) if m.contains("a.parquet`: the file is damaged")),
        "{error}"
    );
    // Cut off between plan and run.
    std::fs::write(&path, &whole).unwrap();
    let planned = plan(json!({"url": "a.parquet"}), folder.path()).await.unwrap();
    std::fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    let error = read_source(&planned.source, &planned.columns, Drive::default()).await.unwrap_err();
    assert!(matches!(&error, ConnectorError::Fatal(m) if m.contains("a.parquet")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_list_of_files_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path();
    for (name, start) in [("a", 0), ("b", 100), ("c", 200)] {
        write(&base.join(format!("{name}.parquet")), &(start..start + 100).collect::<Vec<_>>(), name, 10);
    }
    let with = json!({"url": "*.parquet"});
    let first = plan(with.clone(), base).await.unwrap();
    let drive = Drive { chunk_rows: 150, ..Drive::default() };
    let read = read_source(&first.source, &first.columns, drive).await.unwrap();
    let position = read[&0].positions.iter().find(|(rows, ..)| *rows > 100).unwrap().clone();
    let go_on = async || {
        let planned = plan(with.clone(), base).await.unwrap();
        let restored = BTreeMap::from([(0, position.2.clone())]);
        read_source(&planned.source, &planned.columns, Drive { restored, ..Drive::default() })
            .await
            .map(|mut r| r.remove(&0).unwrap())
    };
    // A file that comes after is read.
    write(&base.join("d.parquet"), &(300..310).collect::<Vec<_>>(), "d", 10);
    assert_eq!(ts(&go_on().await.unwrap()), (position.0 as i64..310).collect::<Vec<_>>());
    // One that begins before is not merged in behind the reader's back.
    write(&base.join("e.parquet"), &[120, 330], "e", 10);
    let error = go_on().await.unwrap_err().to_string();
    assert!(error.contains("cannot go on from the checkpoint"), "{error}");
    std::fs::remove_file(base.join("e.parquet")).unwrap();
    // One that was read and is gone.
    std::fs::remove_file(base.join("a.parquet")).unwrap();
    let error = go_on().await.unwrap_err().to_string();
    assert!(error.contains("file `a.parquet` had been read and is no longer there"), "{error}");
    // One that was rewritten.
    write(&base.join("a.parquet"), &(0..99).collect::<Vec<_>>(), "a", 10);
    let error = go_on().await.unwrap_err().to_string();
    assert!(error.contains("are not those that had been read"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_folder_is_refused_though_its_files_have_the_same_names_and_rows() {
    let folders = ["x", "y"].map(|symbol| {
        let folder = tempfile::tempdir().unwrap();
        for day in 0..12i64 {
            let ts: Vec<i64> = (day * 100..day * 100 + 100).collect();
            write(&folder.path().join(format!("{day:02}.parquet")), &ts, symbol, 10);
        }
        folder
    });
    let with = json!({"url": "*.parquet"});
    let one = plan(with.clone(), folders[0].path()).await.unwrap();
    let other = plan(with.clone(), folders[1].path()).await.unwrap();
    let drive = Drive { chunk_rows: 90, ..Drive::default() };
    another_input_is_refused(&one, &other, drive.clone(), &[".parquet", "had been read"]).await;
    // The first file alone is another: eleven files later it is still noticed.
    std::fs::copy(folders[1].path().join("00.parquet"), folders[0].path().join("00.parquet.new")).unwrap();
    let read = read_source(&one.source, &one.columns, drive).await.unwrap();
    let position = read[&0].positions.last().unwrap().2.clone();
    std::fs::rename(folders[0].path().join("00.parquet.new"), folders[0].path().join("00.parquet")).unwrap();
    let again = plan(with, folders[0].path()).await.unwrap();
    let restored = BTreeMap::from([(0, position)]);
    let error = read_source(&again.source, &again.columns, Drive { restored, ..Drive::default() }).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("of the 12 files") && error.contains("--from none"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn four_real_days_are_one_ordered_stream() {
    let Some(data) = crate::files::real_data() else { return };
    let url = data.join("equities/trades_*.parquet").display().to_string();
    let planned = plan(json!({"url": url}), &data).await.unwrap();
    assert_eq!(planned.columns.field_with_name("symbol").unwrap().data_type(), &row::symbol_type());
    let read = rows(json!({"url": url}), &data).await;
    assert!(read.seqs.len() > 2_300_000, "{}", read.seqs.len());
    assert!(ts(&read).is_sorted());
    // Oracle: each file by itself, one after another.
    let mut alone = Vec::new();
    for day in ["07", "08", "09", "10"] {
        let file = std::fs::File::open(data.join(format!("equities/trades_201310{day}.parquet"))).unwrap();
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file)
            .unwrap()
            .build()
            .unwrap();
        alone.extend(reader.map(|b| unpacked(&b.unwrap())));
    }
    let alone = arrow::compute::concat_batches(&alone[0].schema(), &alone).unwrap();
    assert_eq!(read.rows.num_rows(), alone.num_rows());
    for name in ["ts", "symbol", "price", "size"] {
        let as_text = |b: &RecordBatch| {
            arrow::compute::cast(
                b.column_by_name(name).unwrap(),
                read.rows.column_by_name(name).unwrap().data_type(),
            )
            .unwrap()
        };
        assert!(as_text(&read.rows) == as_text(&alone), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_quotes_and_trades_of_one_day_overlap_and_resume() {
    let Some(data) = crate::files::real_data() else { return };
    let with = json!({
        "url": data.join("equities/*_20131007.parquet").display().to_string(),
        "columns": ["symbol"], "from": "2013-10-07T14:00:00Z", "to": "2013-10-07T14:02:00Z",
    });
    // Quotes and trades have different columns: `columns` makes them one.
    let planned = plan(with, &data).await.unwrap();
    let read = &check_source(&planned).await[&0];
    assert!(ts(read).is_sorted() && read.seqs.len() > 1000);
}
