//! The Postgres wire server against the clients people have: psql (Debian's postgresql-client) and psycopg
//! (`scripts/python`). The server is the binary; what it should answer is what the engine answers directly.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array,
    Int64Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Int32Type};
use arrow::util::display::array_value_to_string;
use tidemill_sql::{Engine, EngineConfig};
use tidemill_tests::patience::hang_guard;
use tidemill_tests::{binary, data, python, root, skipped, wait_for};

/// A server that ends with the test.
struct Serving {
    child: Child,
    port: u16,
}

impl Serving {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .args(["sql-server", "--listen", "127.0.0.1:0"])
            .args(args)
            .env_remove("TIDEMILL_ARCHIVE")
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        Self { port: port.unwrap_or_else(|| panic!("the server said `{line}`")), child }
    }

    fn url(&self, user: &str, more: &str) -> String {
        format!("host=127.0.0.1 port={} user={user} dbname=tidemill {more}", self.port)
    }

    fn psql(&self, sql: &str) -> Output {
        psql(&self.url("ann", "sslmode=disable"), &["-c", sql], "")
    }

    /// Ticks of CPU time that the server has used.
    fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Waits until the server computes nothing any more.
    fn settle(&self) {
        let guard = hang_guard();
        loop {
            let before = self.ticks();
            std::thread::sleep(Duration::from_millis(700));
            if self.ticks() - before <= 3 {
                return;
            }
            guard.check(|| "the server still computes".to_owned());
        }
    }

    /// Waits until the server has computed for half a second since `ticks`: a query is running.
    fn computes(&self, ticks: u64) {
        hang_guard().wait_until(|| "the query does not begin".to_owned(), || self.ticks() >= ticks + 50);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn psql_command(url: &str, args: &[&str], password: &str) -> Command {
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-P", "pager=off"]);
    command.arg(url).args(args).env("PGPASSWORD", password).env("PGCONNECT_TIMEOUT", "60");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn psql(url: &str, args: &[&str], password: &str) -> Output {
    psql_command(url, args, password).output().unwrap()
}

fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out.into_owned()
}

fn refusal(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = there.or_else(|_| Command::new(program).arg("version").stdout(Stdio::null()).status());
    match there.is_ok() {
        true => true,
        false => {
            skipped(&format!("no {program}"));
            false
        }
    }
}

/// A table with a column of every type that an archive has.
fn things(folder: &Path) -> PathBuf {
    let n = 1000_i64;
    let symbols: DictionaryArray<Int32Type> =
        (0..n).map(|i| Some(["AAA", "BBB", "CCC"][i as usize % 3])).collect();
    let cash = (0..n).map(|i| (i128::from(i) - 500) * 98_765_432_109_876_543_210_987_654_321_i128);
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "ts",
            Arc::new(
                TimestampNanosecondArray::from_iter_values(
                    (0..n).map(|i| 1_381_152_600_000_000_000 + i * 1_000_001_000),
                )
                .with_timezone("UTC"),
            ),
        ),
        ("symbol", Arc::new(symbols)),
        ("price", Arc::new(Float64Array::from_iter_values((0..n).map(|i| 100.0 + i as f64 / 7.0)))),
        ("cash", Arc::new(Decimal128Array::from_iter_values(cash).with_precision_and_scale(38, 18).unwrap())),
        ("n", Arc::new(UInt64Array::from_iter_values((0..n).map(|i| u64::MAX - i as u64)))),
        ("delta", Arc::new(Int64Array::from_iter((0..n).map(|i| (i % 5 != 0).then_some(i - 500))))),
        ("day", Arc::new(Date32Array::from_iter_values((0..n).map(|i| 15_980 + i as i32)))),
        ("up", Arc::new(BooleanArray::from_iter((0..n).map(|i| Some(i % 2 == 0))))),
        (
            "note",
            Arc::new(StringArray::from_iter((0..n).map(|i| (i % 4 != 0).then(|| format!("n,\"{i}\" ü"))))),
        ),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, name == "delta" || name == "note")),
    )
    .unwrap();
    let path = folder.join("things.parquet");
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path
}

/// A server with the table of things, everybody let in.
fn serving(args: &[&str]) -> (tempfile::TempDir, Serving) {
    let folder = tempfile::tempdir().unwrap();
    let table = format!("things={}", things(folder.path()).display());
    let serving = Serving::start(&[&["--trust", "--table", &table], args].concat());
    (folder, serving)
}

fn direct(engine: &Engine, sql: &str) -> Vec<RecordBatch> {
    wait_for(async { engine.query(sql).await.unwrap().collect().await.unwrap() })
}

/// How near two floats must be.
#[derive(Clone, Copy, PartialEq)]
enum Floats {
    /// The same bits.
    Exact,
    /// A sum over partitions has another last digit each time it is made.
    Summed,
}

/// Whether a value of a client's is the engine's: text as psql prints it, or JSON as Python has it.
fn same(theirs: Option<&str>, column: &ArrayRef, row: usize, floats: Floats) -> bool {
    let column = match column.data_type() {
        DataType::Dictionary(_, values) => arrow::compute::cast(column, values).unwrap(),
        _ => column.clone(),
    };
    let Some(theirs) = theirs else { return column.is_null(row) };
    if column.is_null(row) {
        return false;
    }
    match column.data_type() {
        DataType::Float64 => {
            let ours = column.as_primitive::<arrow::datatypes::Float64Type>().value(row);
            theirs.parse::<f64>().is_ok_and(|theirs| match floats {
                _ if theirs == ours || (theirs.is_nan() && ours.is_nan()) => true,
                Floats::Exact => false,
                Floats::Summed => (theirs - ours).abs() <= 1e-11 * ours.abs(),
            })
        }
        DataType::Timestamp(..) => {
            let micros = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
            let plain = arrow::compute::cast(
                &column,
                &DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None),
            );
            let ours = arrow::compute::cast(&plain.unwrap(), &micros).unwrap();
            let ours = array_value_to_string(&ours, row).unwrap().replace('T', " ");
            let theirs = theirs.replace('T', " ");
            let theirs = theirs.strip_suffix("+00:00").or(theirs.strip_suffix("+00")).unwrap_or(&theirs);
            let trim = |text: &str| match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text.to_owned(),
            };
            trim(theirs) == trim(&ours)
        }
        DataType::Boolean => {
            let ours = column.as_boolean().value(row);
            matches!((theirs, ours), ("t" | "true" | "True", true) | ("f" | "false" | "False", false))
        }
        _ => theirs == array_value_to_string(&column, row).unwrap(),
    }
}

/// Compares a client's rows (each a list of values) with the engine's.
fn compare(sql: &str, theirs: &[Vec<Option<String>>], ours: &[RecordBatch], floats: Floats) {
    let count: usize = ours.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(theirs.len(), count, "{sql}");
    let mut rows = theirs.iter();
    for batch in ours {
        for i in 0..batch.num_rows() {
            let row = rows.next().unwrap();
            assert_eq!(row.len(), batch.num_columns(), "{sql}");
            for (theirs, column) in row.iter().zip(batch.columns()) {
                let ours = array_value_to_string(column, i);
                assert!(
                    same(theirs.as_deref(), column, i, floats),
                    "{sql}\nrow {i}: {theirs:?} is not {ours:?}"
                );
            }
        }
    }
}

/// What psql prints with `--csv`, nulls as `\N`.
fn psql_rows(url: &str, sql: &str) -> Vec<Vec<Option<String>>> {
    let printed = text(&psql(url, &["--csv", "-t", "-P", "null=\\N", "-c", sql], ""));
    let mut rows = Vec::new();
    let (mut row, mut cell, mut quoted, mut was_quoted) = (Vec::new(), String::new(), false, false);
    let mut chars = printed.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' => {
                quoted = !quoted;
                was_quoted = true;
            }
            ',' | '\n' if !quoted => {
                let value = std::mem::take(&mut cell);
                row.push((was_quoted || value != "\\N").then_some(value));
                was_quoted = false;
                if c == '\n' {
                    rows.push(std::mem::take(&mut row));
                }
            }
            c => cell.push(c),
        }
    }
    rows
}

/// Runs queries by psycopg; prints one JSON list a query: rows of values as text.
const PSYCOPG: &str = r#"
import sys, json, datetime, psycopg
url, binary, queries = sys.argv[1], sys.argv[2] == "binary", json.loads(sys.argv[3])
def show(value):
    if value is None: return None
    if isinstance(value, datetime.datetime): return value.astimezone(datetime.timezone.utc).isoformat(sep=" ")
    if isinstance(value, float): return repr(value)
    return format(value, "f") if type(value).__name__ == "Decimal" else str(value)
with psycopg.connect(url) as connection:
    for sql in queries:
        with connection.cursor(binary=binary) as cursor:
            cursor.execute(sql)
            print(json.dumps([[show(value) for value in row] for row in cursor.fetchall()]))
"#;

fn run_python(python: &Path, script: &str, args: &[&str]) -> String {
    let out = Command::new(python)
        .arg("-c")
        .arg(script)
        .args(args)
        .env("PGCONNECT_TIMEOUT", "60")
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn psycopg_rows(python: &Path, url: &str, mode: &str, queries: &[String]) -> Vec<Vec<Vec<Option<String>>>> {
    let printed = run_python(python, PSYCOPG, &[url, mode, &serde_json::to_string(queries).unwrap()]);
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_type_comes_out_of_psql_and_psycopg_as_it_is() {
    if !has("psql") {
        return;
    }
    let (folder, serving) = serving(&[]);
    let engine = wait_for(async {
        let engine = Engine::open(EngineConfig::default()).await.unwrap();
        engine
            .add_table("things", &folder.path().join("things.parquet").display().to_string())
            .await
            .unwrap();
        engine
    });
    let queries = [
        "SELECT * FROM things ORDER BY ts",
        "SELECT ts, symbol, price FROM things WHERE note IS NULL ORDER BY ts LIMIT 7",
        "SELECT symbol, count(*) AS n, avg(price) AS p, sum(delta) AS d FROM things GROUP BY symbol ORDER BY symbol",
        "SELECT 1 AS one, NULL AS nothing, 'x' AS x WHERE false",
    ];
    let url = serving.url("ann", "sslmode=disable");
    for sql in queries {
        compare(sql, &psql_rows(&url, sql), &direct(&engine, sql), Floats::Exact);
    }
    let Some(python) = python() else { return };
    let all: Vec<String> = queries.map(str::to_owned).to_vec();
    for (sql, rows) in queries.iter().zip(psycopg_rows(&python, &url, "text", &all)) {
        compare(sql, &rows, &direct(&engine, sql), Floats::Exact);
    }
    // In binary a number has 28 digits at most: the large ones are left out.
    let narrow = "SELECT ts, symbol, price, n, delta, day, up, note FROM things ORDER BY ts".to_owned();
    let rows = psycopg_rows(&python, &url, "binary", std::slice::from_ref(&narrow));
    compare(&narrow, &rows[0], &direct(&engine, &narrow), Floats::Exact);
}

#[test]
fn the_ten_queries_are_answered_over_the_wire_as_they_are_directly() {
    let Some(data) = data() else { return };
    if !has("psql") {
        return;
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("sql/queries"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "sql"))
        .collect();
    files.sort();
    assert!(files.len() >= 10, "{files:?}");
    let queries: Vec<String> = files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap().trim().trim_end_matches(';').to_owned())
        .collect();
    let tables: Vec<(&str, String)> = ["trades", "quotes"]
        .iter()
        .map(|name| (*name, data.join(format!("equities/{name}_*.parquet")).display().to_string()))
        .collect();
    let engine = wait_for(async {
        let engine = Engine::open(EngineConfig::default()).await.unwrap();
        for (name, path) in &tables {
            engine.add_table(name, path).await.unwrap();
        }
        engine
    });
    let args: Vec<String> = tables.iter().map(|(name, path)| format!("{name}={path}")).collect();
    let serving = Serving::start(&["--trust", "--table", &args[0], "--table", &args[1]]);
    let url = serving.url("ann", "sslmode=disable");
    let python = python();
    let by_python = python.map(|python| psycopg_rows(&python, &url, "text", &queries));
    for (i, sql) in queries.iter().enumerate() {
        let ours = direct(&engine, sql);
        assert!(ours.iter().any(|batch| batch.num_rows() > 0), "no rows: {sql}");
        compare(sql, &psql_rows(&url, sql), &ours, Floats::Summed);
        if let Some(rows) = &by_python {
            compare(sql, &rows[i], &ours, Floats::Summed);
        }
    }
}

#[test]
fn psql_describes_tables() {
    if !has("psql") {
        return;
    }
    let (_folder, serving) = serving(&[]);
    let list = text(&serving.psql("\\dt"));
    assert!(list.contains("things") && list.contains("public"), "{list}");
    let columns = text(&serving.psql("\\d things"));
    for (name, kind) in [
        ("ts", "timestamp with time zone"),
        ("symbol", "text"),
        ("price", "double precision"),
        ("cash", "numeric"),
        ("delta", "bigint"),
        ("day", "date"),
        ("up", "boolean"),
    ] {
        let line =
            columns.lines().find(|line| line.trim().split('|').next().is_some_and(|n| n.trim() == name));
        assert!(line.is_some_and(|line| line.contains(kind)), "{name}: {columns}");
    }
    for command in ["\\l", "\\dn", "\\d", "\\conninfo", "\\dv"] {
        text(&serving.psql(command));
    }
    let version = text(&serving.psql("SELECT version(), current_database(), current_schema()"));
    assert!(
        version.contains("Tidemill") && version.contains("tidemill") && version.contains("public"),
        "{version}"
    );
}

#[test]
fn only_who_knows_the_password_comes_in() {
    if !has("psql") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passwords");
    std::fs::write(&file, "# traders\nann:s3cret:with:colons\nbob:other\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let serving = Serving::start(&["--password-file", file.to_str().unwrap()]);
    let url = |user: &str| serving.url(user, "sslmode=disable");
    assert!(
        text(&psql(&url("ann"), &["-c", "SELECT 41 + 1 AS answer"], "s3cret:with:colons")).contains("42")
    );
    for (user, password) in [("ann", "other"), ("bob", "s3cret:with:colons"), ("eve", "other"), ("ann", "")] {
        let refused = refusal(&psql(&url(user), &["-w", "-c", "SELECT 1"], password));
        let known = refused.contains(&format!("password authentication failed for user \"{user}\""))
            || refused.contains("no password supplied");
        assert!(known && !refused.contains("s3cret"), "{refused}");
    }
    // The server is well after that.
    assert!(text(&psql(&url("bob"), &["-c", "SELECT 1 AS one"], "other")).contains("one"));
    let open =
        Command::new(binary()).args(["sql-server", "--trust", "--listen", "0.0.0.0:0"]).output().unwrap();
    let said = String::from_utf8_lossy(&open.stderr).into_owned();
    assert!(!open.status.success() && said.contains("listens on loopback only"), "{said}");
}

#[test]
fn writing_is_refused_and_errors_point_at_their_place() {
    if !has("psql") {
        return;
    }
    let (_folder, serving) = serving(&[]);
    for sql in [
        "INSERT INTO things VALUES (1)",
        "CREATE TABLE other AS SELECT 1",
        "DROP TABLE things",
        "DELETE FROM things",
        "UPDATE things SET price = 0",
        "COPY things TO '/tmp/x.csv'",
        "SELECT * INTO other FROM things",
        "TRUNCATE things",
        "EXPLAIN ANALYZE INSERT INTO things VALUES (1)",
    ] {
        let refused = refusal(&serving.psql(sql));
        assert!(refused.contains("25006"), "{sql}: {refused}");
    }
    let unknown = refusal(&serving.psql("SELECT symbol,\n       prize FROM things"));
    assert!(unknown.contains("42703") && unknown.contains("LINE 2:"), "{unknown}");
    assert!(unknown.contains("HINT:") && unknown.contains("price"), "{unknown}");
    let table = refusal(&serving.psql("SELECT 1 FROM thinks"));
    assert!(table.contains("42P01") && table.contains("things"), "{table}");
    let syntax = refusal(&serving.psql("SELECT 1 FRM things"));
    assert!(syntax.contains("42601") && syntax.contains("LINE 1:"), "{syntax}");
}

const LONG: &str = "SELECT sum(a.value * b.value) FROM generate_series(1, 1000000000) a, generate_series(1, 1000000) b WHERE a.value % 7 = b.value % 11";

#[test]
fn what_is_cancelled_timed_out_or_left_alone_ends() {
    if !has("psql") {
        return;
    }
    let (_folder, serving) = serving(&["--statement-timeout", "1h"]);
    let url = serving.url("ann", "sslmode=disable");
    // Ctrl-C.
    let before = serving.ticks();
    let running = psql_command(&url, &["-c", LONG], "").spawn().unwrap();
    serving.computes(before);
    Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    let ended = refusal(&running.wait_with_output().unwrap());
    assert!(ended.contains("57014") && ended.contains("due to user request"), "{ended}");
    serving.settle();
    // The client's own time limit.
    let late = psql_command(&url, &["-c", LONG], "").env("PGOPTIONS", "-c statement_timeout=300ms").output();
    let late = refusal(&late.unwrap());
    assert!(late.contains("57014") && late.contains("due to statement timeout"), "{late}");
    let set = psql(&url, &["-c", "SET statement_timeout = '200ms'", "-c", LONG], "");
    assert!(refusal(&set).contains("statement timeout"));
    serving.settle();
    // A client that is killed leaves nothing behind.
    let before = serving.ticks();
    let mut killed = psql_command(&url, &["-c", LONG], "").spawn().unwrap();
    serving.computes(before);
    killed.kill().unwrap();
    killed.wait().unwrap();
    serving.settle();
    // One that is killed while rows come, too.
    let many = "SELECT value FROM generate_series(1, 1000000000000)";
    let before = serving.ticks();
    let mut killed = psql_command(&url, &["--csv", "-v", "FETCH_COUNT=0", "-c", many], "").spawn().unwrap();
    serving.computes(before);
    killed.kill().unwrap();
    killed.wait().unwrap();
    serving.settle();
    assert!(text(&serving.psql("SELECT count(*) AS n FROM things")).contains("1000"));
}

#[test]
fn twenty_clients_at_once_and_not_one_more_than_may_be() {
    let Some(python) = python() else { return };
    let (_folder, serving) = serving(&["--max-connections", "20"]);
    let script = r#"
import sys, threading, psycopg
url = sys.argv[1]
wrong, barrier = [], threading.Barrier(20)
connections = [psycopg.connect(url) for _ in range(20)]
try:
    psycopg.connect(url)
    wrong.append("the 21st came in")
except psycopg.OperationalError as error:
    if "too many clients" not in str(error): wrong.append(str(error))
def work(number):
    try:
        barrier.wait()
        for turn in range(25):
            low = (number * 25 + turn) % 990
            sql = "SELECT count(*), min(symbol), sum(delta) FROM things WHERE n <= %s AND n > %s"
            top = 18446744073709551615 - low
            got = connections[number].execute(sql, (top, top - 10)).fetchone()
            want = [i for i in range(low, low + 10)]
            total = sum(i - 500 for i in want if i % 5 != 0)
            if got != (10, "AAA", total): wrong.append(f"{low}: {got} is not {(10, 'AAA', total)}")
    except Exception as error:
        wrong.append(repr(error))
threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
[t.start() for t in threads]; [t.join() for t in threads]
[c.close() for c in connections]
again = psycopg.connect(url).execute("SELECT 1").fetchone()
print("wrong:", wrong[:3], again)
"#;
    let said = run_python(&python, script, &[&serving.url("ann", "sslmode=disable")]);
    assert_eq!(said.trim(), "wrong: [] (1,)");
}

#[test]
fn drivers_prepare_bind_and_recover() {
    let Some(python) = python() else { return };
    let (_folder, serving) = serving(&[]);
    let script = r#"
import sys, datetime, decimal, psycopg
url = sys.argv[1]
decimal.getcontext().prec = 60
utc = datetime.timezone.utc
with psycopg.connect(url) as c:
    sql = "SELECT symbol, price FROM things WHERE symbol = %s AND ts >= %s AND price < %s AND (delta = %s OR %s) ORDER BY ts LIMIT %s"
    start = datetime.datetime(2013, 10, 7, 13, 30, 0, tzinfo=utc)
    for turn in range(12):  # psycopg prepares after five
        for prepare in (None, True):
            rows = c.execute(sql, ("BBB", start, 102.5, -499, turn % 2 == 0, 3), prepare=prepare).fetchall()
            want = [("BBB", 100.0 + i / 7.0) for i in ([1, 4, 7] if turn % 2 == 0 else [1])]
            assert rows == want, (turn, prepare, rows)
    for binary in (False, True):
        with c.cursor(binary=binary) as cur:
            cur.execute("SELECT ts, day, up, n, note FROM things WHERE delta = %b" if binary else "SELECT ts, day, up, n, note FROM things WHERE delta = %s", (-499,))
            row = cur.fetchone()
            assert row[0] == start + datetime.timedelta(seconds=1, microseconds=1), row
            assert row[1] == datetime.date(2013, 10, 3), row
            assert row[2] is False and row[4] == 'n,"1" \u00fc', row
            assert row[3] == decimal.Decimal(18446744073709551614), row
    assert c.execute("SELECT cash FROM things WHERE delta = %s", (-499,)).fetchone()[0] == decimal.Decimal("-499") * decimal.Decimal("98765432109.876543210987654321")
    assert c.execute("SELECT %s::text IS NULL, %s::text", (None, "x")).fetchone() == (True, "x")
    assert c.execute("SELECT count(*) FROM things WHERE note = %s OR delta = %s", (None, -499)).fetchone() == (1,)
    assert c.execute("SELECT count(*) FROM things WHERE symbol = ANY(%s)", (["AAA", "CCC"],)).fetchone() == (667,)
    assert c.execute("SELECT %s::text", ("{x}",)).fetchone() == ("{x}",)
    c.commit()
    # An error within a transaction, and out of it again.
    try:
        c.execute("SELECT nothing FROM things")
        raise SystemExit("no error")
    except psycopg.errors.UndefinedColumn as error:
        assert error.diag.statement_position == "8", error.diag.statement_position
    try:
        c.execute("SELECT 1")
        raise SystemExit("no error")
    except psycopg.errors.InFailedSqlTransaction:
        pass
    c.rollback()
    assert c.execute("SELECT 1").fetchone() == (1,)
    try:
        c.execute("INSERT INTO things (delta) VALUES (1)")
        raise SystemExit("no error")
    except psycopg.errors.ReadOnlySqlTransaction:
        c.rollback()
    # Rows in portions, and a portal that is left.
    with c.cursor() as cur:
        got = [r[0] for r in cur.stream("SELECT value FROM generate_series(1, 100000)")]
        assert got == list(range(1, 100001))
    c.commit()  # psycopg mixes up a stream and a pipeline in one transaction, with a Postgres too
    with c.pipeline():
        cursors = [c.execute("SELECT %s::bigint * 2", (n,)) for n in range(50)]
    assert [x.fetchone()[0] for x in cursors] == [2 * n for n in range(50)]
    c.execute("SET application_name = 'mine'")
    assert c.execute("SHOW application_name").fetchone() == ("mine",)
with psycopg.connect(url, autocommit=True) as c:
    first = c.cursor()
    first.execute("SELECT 1; SELECT 2")
    assert first.fetchone() == (1,) and first.nextset() and first.fetchone() == (2,)
print("well")
"#;
    assert_eq!(run_python(&python, script, &[&serving.url("ann", "sslmode=disable")]).trim(), "well");
}

#[test]
fn tls_with_channel_binding() {
    if !has("psql") || !has("openssl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (cert, key) = (at("cert.pem"), at("key.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-sha256",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &key, "-out", &cert])
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    std::fs::write(at("passwords"), "ann:secret\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(at("passwords"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let args = ["--password-file", &at("passwords"), "--tls-cert", &cert, "--tls-key", &key];
    let serving = Serving::start(&args);
    let root = format!("sslmode=verify-full sslrootcert={cert} channel_binding=require");
    for how in [root.as_str(), "sslmode=require", "sslmode=disable"] {
        let said = text(&psql(&serving.url("ann", how), &["-c", "SELECT 6 * 7 AS answer"], "secret"));
        assert!(said.contains("42"), "{how}: {said}");
    }
    let refused = refusal(&psql(&serving.url("ann", &root), &["-w", "-c", "SELECT 1"], "wrong"));
    assert!(refused.contains("password authentication failed"), "{refused}");
    let swapped = Command::new(binary())
        .args(["sql-server", "--trust", "--listen", "127.0.0.1:0", "--tls-cert", &key, "--tls-key", &cert])
        .output()
        .unwrap();
    assert!(!swapped.status.success());
    assert!(String::from_utf8_lossy(&swapped.stderr).contains("TLS: cannot use"));
}
