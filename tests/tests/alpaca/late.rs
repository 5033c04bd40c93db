//! What comes late: sendings, rows, executions, and a run that begins again.

use super::*;

/// Rows of now, or of so long ago.
fn fresh(first: u64, age: Duration, objects: &[Value]) -> RecordBatch {
    let batch = rows(first, objects);
    let ts = tidemill_engine::clock::Clock::System.now_ns() - age.as_nanos() as i64;
    let mut columns = batch.columns().to_vec();
    columns[0] = row::ts_array(vec![ts; batch.num_rows()]);
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

#[tokio::test]
async fn a_second_sending_that_is_refused_is_not_the_end_of_a_first_that_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let venue = AlpacaServer::start(Faults::then(&[Fate::LateArrival, Fate::Refused])).await.unwrap();
    let mut writer = open(folder.path(), &venue.url(), json!({})).await.unwrap();
    writer.write(rows(0, &[market(A, "SPY", 5)])).await.unwrap();
    assert_eq!(outcomes(folder.path()), [(A.to_owned(), "taken".to_owned())]);
    // The same of a change.
    writer.write(rows(10, &[limit(B, 10)])).await.unwrap();
    venue.set_faults(Faults::then(&[Fate::LateArrival, Fate::Refused]));
    let change = json!({ "event": "modify", "order_id": B, "symbol": "SPY", "quantity": 12, "price": 102 });
    writer.write(rows(20, &[change])).await.unwrap();
    let said: Vec<String> = outcomes(folder.path()).into_iter().map(|(_, what)| what).collect();
    assert_eq!(said, ["taken", "taken", "taken"]);
    let shown: Vec<String> = venue.book().orders.iter().map(|o| format!("{} {}", o.qty, o.status)).collect();
    assert_eq!(shown, ["5 filled", "10 replaced", "12 new"]);
    // One that never arrives is refused in the end.
    venue.set_faults(Faults::then(&[Fate::Cut, Fate::Refused]));
    writer.write(rows(30, &[market(&format!("{:032x}", 3), "SPY", 1)])).await.unwrap();
    let (_, why) = outcomes(folder.path()).pop().unwrap();
    assert!(why.contains("insufficient qty"), "{why}");
}

#[tokio::test]
async fn an_order_that_turned_too_old_while_it_was_on_its_way_is_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut faults = Faults::then(&[Fate::LateArrival]);
    faults.patience = Duration::from_millis(1500);
    let venue = AlpacaServer::start(faults).await.unwrap();
    let more = json!({ "timeout": "1500ms", "max_age": "1400ms", "give_up_after": "9s" });
    let mut writer = open(folder.path(), &venue.url(), more).await.unwrap();
    writer.write(fresh(0, Duration::ZERO, &[market(A, "SPY", 5)])).await.unwrap();
    assert_eq!(outcomes(folder.path()), [(A.to_owned(), "taken".to_owned())]);
    assert_eq!(venue.book().orders.len(), 1);
}

#[tokio::test]
async fn a_change_that_is_too_old_is_not_sent_and_a_cancel_is() {
    let folder = tempfile::tempdir().unwrap();
    let venue = AlpacaServer::start(Faults::none()).await.unwrap();
    let mut writer = open(folder.path(), &venue.url(), json!({ "max_age": "1m" })).await.unwrap();
    writer.write(fresh(0, Duration::ZERO, &[limit(B, 10)])).await.unwrap();
    let [change, cancel] = ["modify", "cancel"]
        .map(|event| json!({ "event": event, "order_id": B, "symbol": "SPY", "quantity": 12, "price": 102 }));
    let old = Duration::from_secs(300);
    writer.write(fresh(10, old, std::slice::from_ref(&change))).await.unwrap();
    let (_, why) = outcomes(folder.path()).pop().unwrap();
    assert!(why.contains("the change is 300 s old"), "{why}");
    assert_eq!(venue.book().orders.len(), 1);
    writer.write(fresh(20, Duration::ZERO, &[change])).await.unwrap();
    writer.write(fresh(30, old, &[cancel])).await.unwrap();
    let shown: Vec<String> = venue.book().orders.iter().map(|o| format!("{} {}", o.qty, o.status)).collect();
    assert_eq!(shown, ["10 replaced", "12 canceled"]);
}

fn post(venue: &AlpacaServer, id: &str, symbol: &str, kind: &str, qty: &str) {
    let order = json!({ "client_order_id": id, "symbol": symbol, "qty": qty, "type": kind, "side": "buy",
        "time_in_force": "day", "limit_price": "100.00" });
    let told = venue.book().post(&order).1;
    venue.tell(told);
}

fn has(said: &[Value], event: &str) -> bool {
    said.iter().any(|row| row["event"] == event)
}

#[test]
fn no_snapshot_has_an_execution_that_was_not_told() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let venue = runtime.block_on(AlpacaServer::start(Faults::none())).unwrap();
    let account = Account::new(&venue);
    let mut child = account.start(None);
    post(&venue, A, "SPY", "limit", "10");
    post(&venue, B, "SPY", "limit", "10");
    account.wait("the orders", |said| {
        said.iter().filter(|r| r["event"] == "snapshot_order").count() > 1
            && said.last().is_some_and(|r| r["event"] == "snapshot_end")
    });
    // The books have them; neither the stream nor the history says so yet.
    let held_back = {
        let mut book = venue.book();
        let mut told = book.fill(A, 4.into(), "100");
        told.extend(book.fill(B, 10.into(), "100"));
        (std::mem::take(&mut book.fills), told)
    };
    std::thread::sleep(Duration::from_millis(1200));
    let last = account.said().iter().rev().find(|r| r["event"] == "snapshot_position").cloned();
    assert_eq!(last, None, "no snapshot has them");
    venue.book().fills = held_back.0;
    venue.tell(held_back.1);
    let said = account.wait("the executions and a snapshot", |said| {
        has(said, "filled")
            && said.iter().any(|r| r["event"] == "snapshot_position")
            && said.last().is_some_and(|r| r["event"] == "snapshot_end")
    });
    assert_eq!(read(&said).0, 14);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_that_goes_on_says_so_before_its_first_snapshot_and_coins_keep_their_symbols() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let venue = runtime.block_on(AlpacaServer::start(Faults::none())).unwrap();
    post(&venue, A, "BTC/USD", "market", "2");
    let account = Account::new(&venue);
    let mut child = account.start(None);
    let said = account.wait("a snapshot", |said| has(said, "snapshot_end"));
    assert!(!has(&said, "reconciling"));
    let position = said.iter().find(|r| r["event"] == "snapshot_position").unwrap();
    assert_eq!(position["symbol"], "BTC/USD");
    child.kill().unwrap();
    child.wait().unwrap();
    // The venue is deaf: nothing but this is told.
    let mut deaf = Faults::none();
    deaf.deaf_percent = 100;
    venue.set_faults(deaf);
    let mut child = account.start(None);
    account.wait("that it goes on", |said| has(said, "reconciling"));
    std::thread::sleep(Duration::from_millis(300));
    let behind = |said: &[Value]| {
        let at = said.iter().rposition(|r| r["event"] == "reconciling").unwrap();
        has(&said[at..], "snapshot_end")
    };
    assert!(!behind(&account.said()));
    venue.set_faults(Faults::none());
    account.wait("a snapshot of this run", behind);
    child.kill().unwrap();
    child.wait().unwrap();
}
