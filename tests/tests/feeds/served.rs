//! The recorded sessions served live, captured, and replayed from what was captured.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tidemill_connectors::capture::info::info;
use tidemill_connectors::capture::reader::Capture;
use tidemill_connectors::capture::serve::ServeOptions;
use tidemill_connectors::venue::frame::{Frame, FrameKind};
use tidemill_tests::binary;
use tidemill_tests::patience::hang_guard;

use super::sessions::{DEPTH, KRAKEN, SPOT, Session, replay};
use super::told::{final_books, rows, time};
use super::{Running, count_lines, serve};

const FEEDS: [&str; 3] = ["deltas", "snapshots", "trades"];

/// What a feed has to capture: messages and answers.
type Expected<'a> = dyn Fn(&str) -> (u64, u64) + 'a;

/// Runs a graph live until all that is served was captured, replays the capture, and stops the live run when it has
/// written all rows that it can write.
fn live_and_replayed(folder: &Path, graph: &str, expected: &Expected) {
    std::fs::write(folder.join("graph.yaml"), graph).unwrap();
    let tidemill = |args: &[&str]| {
        let mut command = Command::new(binary());
        command.args(args).current_dir(folder).stdin(Stdio::null()).stderr(Stdio::inherit());
        command
    };
    let mut live = tidemill(&["run", "graph.yaml", "--progress", "off", "--checkpoints", "off"]);
    let mut live = Running(live.spawn().unwrap());
    let captured = |feed: &str| -> Result<(u64, u64), String> {
        let info = tidemill_tests::wait_for(async {
            let url = format!("captures/{feed}");
            info(&Capture::open(&url, folder, feed).await?).await
        })?;
        Ok((info.received, info.responses))
    };
    for feed in FEEDS {
        let has_all = || {
            captured(feed).is_ok_and(|(received, responses)| {
                received >= expected(feed).0 && responses >= expected(feed).1
            })
        };
        hang_guard().wait_until(|| format!("{feed}: {:?} of {:?}", captured(feed), expected(feed)), has_all);
    }
    let replay = ["replay", "captures", "graph.yaml", "--progress", "off", "--set", "out=replayed"];
    assert!(tidemill(&replay).status().unwrap().success());
    // Live, a row is written when time has passed it, that is, with the next newer row: all but those as old as the
    // newest. Of the books that may be all rows: they begin with the answers of REST, which have the time of the
    // last message before them, and whichever answer comes first takes the others' rows to its time.
    for feed in FEEDS {
        let file = |run: &str| folder.join(format!("{run}.{feed}.jsonl"));
        let times: Vec<i64> = rows(&file("replayed")).iter().map(|row| time(row, "ts")).collect();
        let newest = times.iter().max().copied();
        let passed = times.iter().filter(|ts| Some(**ts) != newest).count();
        let now = || count_lines(&file("live"));
        hang_guard().wait_until(|| format!("{feed}: {} of {passed} rows", now()), || now() >= passed);
    }
    Command::new("kill").args(["-TERM", &live.0.id().to_string()]).status().unwrap();
    assert!(live.0.wait().unwrap().success());
    for feed in FEEDS {
        let text = |run: &str| std::fs::read_to_string(folder.join(format!("{run}.{feed}.jsonl"))).unwrap();
        let (live, replayed) = (text("live"), text("replayed"));
        let rest = replayed.strip_prefix(live.as_str());
        let rest =
            rest.unwrap_or_else(|| panic!("{feed}: the replay does not begin with the live run's lines"));
        // Stopped, a run leaves what its watermark has not passed: what is as old as the newest row.
        let newest = replayed.lines().last().map(|line| time(&serde_json::from_str(line).unwrap(), "ts"));
        for line in rest.lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            assert_eq!(Some(time(&row, "ts")), newest, "{feed}: only the replay has {row}");
        }
        let counts = [live, replayed].map(|text| text.lines().count());
        eprintln!("{feed}: {} rows live, {} replayed, the same in the same order", counts[0], counts[1]);
    }
}

/// The rows end with whole books, and they are those of the session.
fn ends_right(session: &Session, sessions: &Path, folder: &Path) {
    let told = final_books(&rows(&folder.join("replayed.deltas.jsonl")));
    let slow = session.rebuilt(sessions);
    assert_eq!(told.len(), slow.len());
    for (symbol, book) in &slow {
        assert!(told[symbol].valid && told[symbol].equals(book).is_some(), "{symbol}");
    }
    let rows = rows(&folder.join("replayed.snapshots.jsonl"));
    for (symbol, book) in &slow {
        let last = rows.iter().rev().find(|row| row["symbol"] == symbol.as_str()).unwrap();
        assert_eq!(last["valid"], true);
        assert_eq!(super::told::top(last), book.top(DEPTH), "{symbol}");
    }
}

fn received(frames: &[Frame]) -> u64 {
    frames.iter().filter(|frame| frame.kind == FrameKind::Received).count() as u64
}

/// At full speed all differences come before the answers, at twenty times the recorded one they mix.
#[test]
fn the_binance_session_served_live_is_the_replay_of_its_capture() {
    let Some(sessions) = Session::folder() else { return };
    for speed in [None, Some(20.0)] {
        let folder = tempfile::tempdir().unwrap();
        // The session's streams came over one connection; each source asks for its own.
        let mut frames = Vec::new();
        for frame in SPOT.frames(&sessions) {
            for (connection, stream) in [(0, "depth@100ms"), (1, "aggTrade")] {
                let mut frame = Frame { connection, ..frame.clone() };
                if frame.kind == FrameKind::Opened {
                    let streams: Vec<String> =
                        SPOT.symbols.iter().map(|s| format!("{}@{stream}", s.to_lowercase())).collect();
                    let url = format!("wss://stream.binance.com:9443/stream?streams={}", streams.join("/"));
                    frame.data = url.into();
                }
                if connection == 0 || !matches!(frame.kind, FrameKind::Response { .. }) {
                    frames.push(frame);
                }
            }
        }
        let messages = received(&frames) / 2;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(serve(frames, ServeOptions { speed, ..ServeOptions::default() }));
        let address = server.address;
        let graph = SPOT.graph(|_| {
            json!({
                "ws_url": format!("ws://{address}"),
                "rest_url": format!("http://{address}"),
                "connection": { "capture": "captures", "stale_after": "5m" },
            })
        });
        // Of REST: the list of symbols, which the session does not have, and the books.
        live_and_replayed(folder.path(), &graph, &|feed| (messages, if feed == "trades" { 1 } else { 5 }));
        ends_right(&SPOT, &sessions, folder.path());
    }
}

#[test]
fn the_kraken_session_served_live_is_the_replay_of_its_capture() {
    let Some(sessions) = Session::folder() else { return };
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // All three connections have the same URL: a server of its own for trades and for books.
    let all = KRAKEN.frames(&sessions);
    let of = |connection: u32| -> Vec<Frame> {
        all.iter().filter(|frame| frame.connection == connection).cloned().collect()
    };
    let (trades, books) = (of(0), of(2));
    let messages = [received(&trades), received(&books)];
    let serve = |frames| runtime.block_on(serve(frames, ServeOptions::default()));
    let servers = [serve(trades), serve(books)];
    let graph = KRAKEN.graph(|feed| {
        let server = &servers[usize::from(feed != "trades")];
        json!({
            "ws_url": format!("ws://{}", server.address),
            "connection": { "capture": "captures", "stale_after": "5m" },
        })
    });
    live_and_replayed(folder.path(), &graph, &|feed| (messages[usize::from(feed != "trades")], 0));
    ends_right(&KRAKEN, &sessions, folder.path());
}

/// A live run of these frames writes no row of books at all before another message comes, on any machine: whether there
/// are rows to wait for depends on which of several answers comes first.
#[test]
fn behind_the_last_message_the_first_answer_decides_how_many_rows_time_has_passed() {
    let Some(sessions) = Session::folder() else { return };
    let frames = SPOT.frames(&sessions).into_iter().filter(|frame| frame.kind != FrameKind::Closed);
    let (answers, before): (Vec<Frame>, Vec<Frame>) =
        frames.partition(|frame| matches!(frame.kind, FrameKind::Response { .. }));
    let passed: Vec<usize> = (0..answers.len())
        .map(|first| {
            let mut frames = before.clone();
            frames.extend(answers[first..].iter().chain(&answers[..first]).cloned());
            let times: Vec<i64> =
                replay(&SPOT, &frames).rows("deltas").iter().map(|row| time(row, "ts")).collect();
            let newest = times.iter().max().copied();
            times.iter().filter(|ts| Some(**ts) != newest).count()
        })
        .collect();
    assert!(passed.contains(&0) && passed.iter().any(|n| *n > 0), "{passed:?}");
}
