//! `tidemill capture`: looks into captures of feeds, makes them of recorded sessions, and serves them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets};
use tidemill_connectors::capture::import;
use tidemill_connectors::capture::info::{Info, info};
use tidemill_connectors::capture::reader::Capture;
use tidemill_connectors::capture::serve::{Faults, ServeOptions, Server, load};
use tokio_util::sync::CancellationToken;

use super::block_on;
use super::run::{runtime, stop_on_signal};

/// Looks into captures of feeds, imports recorded sessions, and serves captures
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Counts what is in a capture: frames, connections, time, bytes, torn files
    Info {
        /// The capture: a path, or an s3://, gs:// or az:// URL
        url: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Makes a capture of recorded sessions
    ///
    /// The files are text, packed with gzip where their name ends with .gz: of a WebSocket `URL <-> TIME` first,
    /// `URL <- TIME: TEXT` what was sent, `TIME: TEXT` what was received; of REST requests `URL -> TIME: BODY`.
    /// They are merged by time.
    Import {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Where the capture goes
        #[arg(long, value_name = "URL")]
        into: String,
    },
    /// Serves a capture as its venue did: WebSocket and REST on one port
    ///
    /// A source's ws_url and rest_url (or url) then name this address. The whole capture is held in memory.
    Serve {
        /// The capture: a path, or an s3://, gs:// or az:// URL
        url: String,
        /// Which feed of it, where it has several
        #[arg(long, default_value = "")]
        feed: String,
        /// The address it listens on
        #[arg(long, default_value = "127.0.0.1:9900")]
        listen: String,
        /// How fast: max, realtime, or so many times real time (10x)
        #[arg(long, default_value = "realtime", value_parser = speed)]
        speed: Speed,
        /// What goes wrong: NAME=RATE for every message, NAME@N for message N; drop, duplicate, reorder, corrupt, truncate, stall, cut
        #[arg(long, value_name = "LIST", default_value = "")]
        faults: Faults,
        /// Decides where faults come
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

/// Times real time; `None`: as fast as can be.
#[derive(Clone, Copy, Debug)]
struct Speed(Option<f64>);

fn speed(text: &str) -> Result<Speed, String> {
    match text {
        "max" => Ok(Speed(None)),
        "realtime" => Ok(Speed(Some(1.0))),
        other => {
            let factor = other.strip_suffix('x').and_then(|n| n.parse::<f64>().ok());
            let factor = factor.filter(|f| f.is_finite() && *f > 0.0);
            factor.map(|f| Speed(Some(f))).ok_or_else(|| "write max, realtime, or 10x".into())
        }
    }
}

/// Exit code 1 where a file of the capture is torn.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Info { url, json } => show(&url, json),
        What::Import { files, into } => {
            let frames = import::read(&files).map_err(anyhow::Error::msg)?;
            let count =
                block_on(import::write(&frames, &into, Path::new(".")))?.map_err(anyhow::Error::msg)?;
            println!("{count} frames of {} files are in {into}", files.len());
            Ok(ExitCode::SUCCESS)
        }
        What::Serve { url, feed, listen, speed: Speed(speed), faults, seed } => {
            serve(&url, &feed, &listen, ServeOptions { speed, faults: Faults { seed, ..faults } })
        }
    }
}

fn show(url: &str, json: bool) -> anyhow::Result<ExitCode> {
    let infos = block_on(async {
        let mut infos = Vec::new();
        for capture in Capture::list(url, Path::new(".")).await? {
            infos.push(info(&capture).await?);
        }
        Ok::<_, String>(infos)
    })?;
    let infos = infos.map_err(anyhow::Error::msg)?;
    if infos.is_empty() {
        bail!("there is no capture in {url}");
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&infos)?);
    } else {
        println!("{}", table(&infos));
        for torn in infos.iter().flat_map(|info| &info.torn) {
            println!("torn: {torn}");
        }
    }
    let whole = infos.iter().all(|info| info.torn.is_empty());
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(infos: &[Info]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "feed",
        "runs",
        "files",
        "bytes",
        "unpacked",
        "connections",
        "opened",
        "lost",
        "received",
        "sent",
        "responses",
        "first",
        "last",
        "torn",
    ]);
    let time = |ns: Option<i64>| {
        let at = ns.map(chrono::DateTime::from_timestamp_nanos);
        at.map_or("-".into(), |at| at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
    };
    for info in infos {
        table.add_row([
            if info.feed.is_empty() { "-".into() } else { info.feed.clone() },
            info.runs.to_string(),
            info.files.to_string(),
            info.bytes.to_string(),
            info.frame_bytes.to_string(),
            info.connections.to_string(),
            info.opened.to_string(),
            info.closed.to_string(),
            info.received.to_string(),
            info.sent.to_string(),
            info.responses.to_string(),
            time(info.first_ns),
            time(info.last_ns),
            if info.torn.is_empty() { "no".into() } else { info.torn.len().to_string() },
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(10) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn serve(url: &str, feed: &str, listen: &str, options: ServeOptions) -> anyhow::Result<ExitCode> {
    let runtime = runtime(1)?;
    let stop = CancellationToken::new();
    runtime.spawn(stop_on_signal(stop.clone()));
    runtime.block_on(async {
        let capture = Capture::open(url, Path::new("."), feed).await.map_err(anyhow::Error::msg)?;
        let frames = load(&capture).await.map_err(anyhow::Error::msg)?;
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        let server = Server::start(frames, listener, options)?;
        let (sockets, answers) = server.urls();
        println!("serving {} on {}", capture.display, server.address);
        for (scheme, paths) in [("ws", sockets), ("http", answers)] {
            for path in paths {
                println!("{scheme}://{}{path}", server.address);
            }
        }
        stop.cancelled().await;
        server.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_read_as_users_write_them() {
        assert_eq!(speed("max").unwrap().0, None);
        assert_eq!(speed("2.5x").unwrap().0, Some(2.5));
        for bad in ["fast", "0x", "-1x", "x"] {
            assert!(speed(bad).is_err(), "{bad}");
        }
    }
}
