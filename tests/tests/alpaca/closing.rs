//! What must go, goes: the kill switch, stops, shares that are not whole, splits; through `execution`, the sink and the account's source.
//! And what must not: a closing order never turns a position.

use super::*;

/// A job whose `execution` trades SPY at the venue.
struct Strategy {
    folder: tempfile::TempDir,
    child: Child,
}

/// When a strategy's first row is, seconds from its start: the account's first snapshot has come by then.
const FIRST_S: i64 = 3;

impl Strategy {
    /// Wishes for a position of `target` at a price of 100, three times; then `rows` of seconds and prices, and `commands`.
    fn start(
        venue: &AlpacaServer,
        with: &str,
        target: &str,
        rows: &[(i64, f64)],
        commands: &[(i64, &str)],
    ) -> Self {
        venue.book().cash = 1_000_000.into();
        venue.book().holds = true;
        let folder = tempfile::tempdir().unwrap();
        let begin_ms = tidemill_engine::clock::Clock::System.now_ns() / 1_000_000;
        let target: f64 = target.parse().unwrap();
        let ts = |s: i64| begin_ms + s * 1000;
        let row = |s: i64, price: f64, target: Option<f64>| json!({ "ts": ts(s), "symbol": "SPY", "price": price, "size": 1.0, "target": target });
        let mut lines: String =
            (FIRST_S..FIRST_S + 3).map(|s| format!("{}\n", row(s, 100.0, Some(target)))).collect();
        lines.extend(rows.iter().map(|(s, price)| format!("{}\n", row(*s, *price, None))));
        std::fs::write(folder.path().join("wishes.jsonl"), lines).unwrap();
        let commands: String = commands
            .iter()
            .map(|(s, what)| format!("{}\n", json!({ "ts": ts(*s), "command": what })))
            .collect();
        std::fs::write(folder.path().join("commands.jsonl"), commands).unwrap();
        let access =
            format!("url: \"{}\", key: {KEY}, secret: {SECRET}, requests_per_minute: 100000", venue.url());
        let graph = format!(
            r#"
dataflow: closing
version: 1
sources:
  wishes:
    kind: jsonl
    with: {{ url: wishes.jsonl, event_time_unit: ms, schema: {{ ts: i64, symbol: symbol, price: f64, size: f64, target: f64? }} }}
  kill: {{ kind: jsonl, with: {{ url: commands.jsonl, event_time_unit: ms, schema: {{ ts: i64, command: string }} }} }}
  reports: {{ kind: alpaca_account, with: {{ {access}, timeout: 500ms, snapshot_every: 300ms }} }}
operators:
  execution:
    kind: execution
    from: [wishes, kill, reports]
    with:
      signals: wishes
      market: [wishes]
      reports: reports
      control: kill
      venue: {{ kind: external }}
      sizing: {{ equity: 0.1 }}
      account: {{ cash: {{ USD: 1000000 }} }}
{with}
  told: {{ kind: select, from: execution, with: {{ sql: "*", where: "event <> 'equity'" }} }}
sinks:
  broker: {{ kind: alpaca, from: execution, with: {{ {access}, timeout: 250ms }} }}
  file: {{ kind: jsonl, from: told, with: {{ path: told.jsonl }} }}
"#
        );
        std::fs::write(folder.path().join("graph.yaml"), graph).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(binary())
            .arg("run")
            .arg(folder.path().join("graph.yaml"))
            .args(["--progress", "off", "--checkpoint-every", "50ms"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { folder, child }
    }

    fn told(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("told.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn wait(&mut self, what: &str, done: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let guard = hang_guard();
        loop {
            let told = self.told();
            if done(&told) {
                return told;
            }
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || guard.is_over() {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                panic!("{what} did not come: {ended:?}\n{log}\n{told:#?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Strategy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn held(venue: &AlpacaServer) -> Decimal {
    venue.book().positions.get("SPY").copied().unwrap_or_default()
}

/// The orders of the venue, but those that others took the place of: what they were and how they stand.
fn orders(venue: &AlpacaServer) -> Vec<String> {
    let shown = |o: &tidemill_tests::alpaca_server::Kept| {
        let of = |name: &str| o.sent[name].as_str().unwrap_or("-").to_owned();
        format!("{} {} {} {} {}", of("side"), o.qty, of("type"), of("time_in_force"), o.status)
    };
    venue.book().orders.iter().filter(|o| o.status != "replaced").map(shown).collect()
}

/// What a desk is to do: more settings, its target, prices by second, commands by second, and the orders that come of it.
type Case<'a> = (&'a str, &'a str, &'a [(i64, f64)], &'a [(i64, &'a str)], &'a [&'a str]);

#[test]
fn the_kill_switch_and_stops_leave_nothing_at_the_venue() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let stop = "      protect: { stop_loss: { fraction: 0.05 }, at: machine }";
    let resting = "      protect: { stop_loss: { fraction: 0.05 } }";
    let fractions = format!("{stop}\n      default_instrument: {{ symbol: any, lot: 0.001 }}");
    let (flatten, falls) = ([(8, "flatten")], [(8, 99.0), (9, 94.0)]);
    let cases: [Case; 4] = [
        ("", "10", &[], &flatten, &["buy 10 market gtc filled", "sell 10 market gtc filled"]),
        (stop, "10", &falls, &[], &["buy 10 market gtc filled", "sell 10 market gtc filled"]),
        (&fractions, "2.5", &falls, &[], &["buy 2.5 market day filled", "sell 2.5 market day filled"]),
        // Shares that a resting stop holds are free again before they are sold.
        (
            resting,
            "10",
            &[],
            &flatten,
            &["buy 10 market gtc filled", "sell 10 stop gtc canceled", "sell 10 market gtc filled"],
        ),
    ];
    let running: Vec<_> = cases
        .iter()
        .map(|(with, target, rows, commands, _)| {
            let venue = runtime.block_on(AlpacaServer::start(Faults::none())).unwrap();
            let job = Strategy::start(&venue, with, target, rows, commands);
            (venue, job)
        })
        .collect();
    for ((venue, mut job), (with, target, _, _, expected)) in running.into_iter().zip(cases) {
        let target: f64 = target.parse().unwrap();
        let at = |told: &[Value], position: f64| {
            told.iter().any(|r| {
                let is = r["position"].as_str().and_then(|p| p.parse().ok());
                r["event"] == "fill" && is == Some(position)
            })
        };
        job.wait("the position", |told| at(told, target));
        let told = job.wait("the end of the position", |told| at(told, 0.0));
        assert_eq!(orders(&venue), expected, "{with}");
        assert_eq!(held(&venue), Decimal::ZERO, "{with}");
        assert!(!told.iter().any(|r| r["event"] == "alert"), "{with}: {told:#?}");
    }
}

#[test]
fn a_split_is_told_before_the_snapshot_that_has_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let venue = runtime.block_on(AlpacaServer::start(Faults::none())).unwrap();
    let stop = "      protect: { stop_loss: { fraction: 0.05 }, at: machine }";
    // After the split, 33 is where 99 was.
    let mut job = Strategy::start(&venue, stop, "10", &[(11, 33.0)], &[(13, "flatten")]);
    // The last wish was acted on.
    job.wait("the wishes", |told| {
        let fill = told.iter().find(|r| r["event"] == "fill").and_then(|r| r["ts"].as_str());
        let at = fill.and_then(|ts| chrono::DateTime::parse_from_rfc3339(ts).ok());
        let now = tidemill_engine::clock::Clock::System.now_ns() / 1_000_000;
        at.is_some_and(|at| now - at.timestamp_millis() > 3_500)
    });
    let [removed, added] = venue.book().split("SPY", 3, 1);
    {
        let mut book = venue.book();
        book.positions.insert("SPY".into(), Decimal::ZERO);
        book.bookings.push(removed);
    }
    // Meanwhile the account is compared three times and more.
    std::thread::sleep(Duration::from_millis(1200));
    {
        let mut book = venue.book();
        book.positions.insert("SPY".into(), 30.into());
        book.bookings.push(added);
    }
    let told = job.wait("the end of the position", |told| {
        told.iter()
            .filter(|r| r["event"] == "fill")
            .any(|r| r["fill_quantity"].as_str().is_some_and(|q| q.starts_with("15")))
    });
    // The account that is compared afterwards differs in nothing.
    let alerts: Vec<&str> =
        told.iter().filter(|r| r["event"] == "alert").filter_map(|r| r["detail"].as_str()).collect();
    assert_eq!(alerts, ["one unit became 3: 10 units are 30 now"]);
    let positions: Vec<f64> = told
        .iter()
        .filter(|r| r["event"] == "position")
        .filter_map(|r| r["position"].as_str()?.parse().ok())
        .collect();
    // From ten to thirty, and to nothing by the kill switch: never to nothing by a snapshot in the middle of the split.
    assert!(positions.contains(&10.0) && positions.contains(&30.0), "{positions:?}");
    hang_guard().wait_until(|| format!("{} are held", held(&venue)), || held(&venue) == Decimal::ZERO);
    assert_eq!(orders(&venue), ["buy 10 market gtc filled", "sell 30 market gtc filled"]);
}

fn closing(id: u32, symbol: &str, side: &str, quantity: f64) -> Value {
    json!({ "event": "order", "order_id": format!("{id:032x}"), "symbol": symbol, "side": side, "type": "market",
        "time_in_force": "gtc", "quantity": quantity, "reduce_only": true })
}

#[tokio::test]
async fn a_closing_order_never_turns_a_position() {
    let folder = tempfile::tempdir().unwrap();
    let venue = AlpacaServer::start(Faults::none()).await.unwrap();
    for (symbol, units) in [("SPY", 5), ("IBM", -3), ("BAC", 5), ("AIG", 4)] {
        venue.book().positions.insert(symbol.into(), units.into());
    }
    let mut writer = open(folder.path(), &venue.url(), json!({})).await.unwrap();
    let all = [
        closing(1, "SPY", "sell", 5.0),
        // Nothing is left.
        closing(2, "SPY", "sell", 1.0),
        closing(3, "IBM", "buy", 4.0),
        closing(4, "IBM", "buy", 3.0),
        closing(5, "BAC", "buy", 1.0),
        closing(6, "BAC", "sell", 2.5),
    ];
    writer.write(rows(0, &all)).await.unwrap();
    let outcome = |id: u32| {
        let said = outcomes(folder.path());
        said.into_iter().find(|(key, _)| *key == format!("{id:032x}")).map(|(_, outcome)| outcome).unwrap()
    };
    for (id, words) in [
        (2, "not sent: to sell 1 was to make a position smaller, and alpaca has 0 of SPY"),
        (3, "not sent: to buy 4 was to make a position smaller, and alpaca has -3 of IBM"),
        (5, "not sent: to buy 1 was to make a position smaller, and alpaca has 5 of BAC"),
    ] {
        assert_eq!(outcome(id), words);
    }
    for id in [1, 4, 6] {
        assert_eq!(outcome(id), "taken", "{id}");
    }
    // The first sending was taken, and has closed the position: it is found, not refused.
    venue.set_faults(Faults::then(&[Fate::TakenThenCut]));
    writer.write(rows(10, &[closing(7, "AIG", "sell", 4.0)])).await.unwrap();
    assert_eq!(outcome(7), "taken");
    // The venue does not tell of positions: what must go, goes.
    let mut down = Faults::none();
    down.positions_down = true;
    venue.set_faults(down);
    writer.write(rows(11, &[closing(8, "BAC", "sell", 2.5)])).await.unwrap();
    assert_eq!(outcome(8), "taken");
    venue.set_faults(Faults::none());
    let book = venue.book().clone();
    assert!(book.positions.values().all(Decimal::is_zero), "{:?}", book.positions);
    assert_eq!(book.orders.len(), 5);
    drop(writer);
    let asked = |venue: &AlpacaServer| venue.requests().get("GET /v2/positions/F").copied();
    let mut plain = open(folder.path(), &venue.url(), json!({ "reduce_only": "plain" })).await.unwrap();
    plain.write(rows(12, &[closing(9, "F", "sell", 1.0)])).await.unwrap();
    assert_eq!((outcome(9).as_str(), asked(&venue)), ("taken", None));
    drop(plain);
    let mut strict = open(folder.path(), &venue.url(), json!({ "reduce_only": "refuse" })).await.unwrap();
    strict.write(rows(13, &[closing(10, "F", "buy", 1.0)])).await.unwrap();
    assert!(outcome(10).contains("has `reduce_only: refuse`"), "{}", outcome(10));
    assert_eq!(asked(&venue), None);
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_told_with_what_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut late = Faults::none();
    late.ahead_s = -90;
    let venue = AlpacaServer::start(late).await.unwrap();
    let mut writer = open(folder.path(), &venue.url(), json!({ "max_age": "1m" })).await.unwrap();
    let nothing = json!({ "event": "cancel", "order_id": A, "symbol": "SPY" });
    writer.write(rows(0, &[nothing])).await.unwrap();
    writer.write(rows(1, &[market(B, "SPY", 1)])).await.unwrap();
    let (_, why) = outcomes(folder.path()).pop().unwrap();
    assert!(
        why.contains("max_age is 60 s; this machine's clock is ") && why.contains(" s ahead of alpaca's"),
        "{why}"
    );
    let account = Account::new(&venue);
    let mut child = account.start(None);
    let reported = tokio::task::spawn_blocking(move || {
        let clock = |r: &Value| r["reason"].as_str().is_some_and(|why| why.contains("s ahead of alpaca's"));
        // Once, however often the account is compared.
        let said = account.wait("the alert", |said| {
            let snapshots = said.iter().filter(|r| r["event"] == "snapshot_end").count();
            snapshots > 3 && said.iter().any(clock)
        });
        said.iter().filter(|r| clock(r)).count()
    });
    let reported = reported.await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(reported.unwrap(), 1);
}
