//! Kafka JSON in -> bars and indicators -> Kafka JSON out, with the release binary and a real broker.
//!
//!     eval "$(scripts/services env)"
//!     "$CARGO_TARGET_DIR"/release/kafka_pipeline [throughput|latency|kill]... [--rows MILLIONS] [--seconds N] [--rate N]
//!
//! `--sink 'linger: 50ms'` adds to the sinks' settings, to try them. The job is the `tidemill` binary beside this one; producer and consumer are threads of this process.
//! Latency is from just before a message is produced to when a consumer has its row.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tidemill_benches::{FIVE, load};
use tidemill_engine::clock::Clock;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Symbols of the messages.
const SYMBOLS: u64 = 64;
/// Rows of the first seconds are not counted: connections and code are cold.
const WARM_UP: Duration = Duration::from_secs(5);

struct Args {
    parts: Vec<String>,
    millions: f64,
    seconds: u64,
    rate: u64,
    partitions: i32,
    sink: String,
}

fn main() -> Outcome<()> {
    let mut args = Args {
        parts: Vec::new(),
        millions: 3.0,
        seconds: 30,
        rate: 20_000,
        partitions: 1,
        sink: String::new(),
    };
    let mut given = std::env::args().skip(1);
    while let Some(arg) = given.next() {
        if arg == "--sink" {
            args.sink = format!(", {}", given.next().unwrap_or_default());
            continue;
        }
        let mut number =
            || given.next().and_then(|n| n.parse::<f64>().ok()).ok_or("a number follows the option");
        match arg.as_str() {
            "--rows" => args.millions = number()?,
            "--seconds" => args.seconds = number()? as u64,
            "--rate" => args.rate = number()? as u64,
            "--partitions" => args.partitions = number()? as i32,
            part => args.parts.push(part.to_owned()),
        }
    }
    let brokers = std::env::var("TIDEMILL_TEST_KAFKA")
        .map_err(|_| "no Kafka: scripts/services start kafka; eval \"$(scripts/services env)\"")?;
    let wanted = |part: &str| args.parts.is_empty() || args.parts.iter().any(|p| p == part);
    let bench = Bench {
        brokers,
        folder: tempfile::Builder::new().prefix("tidemill-bench-").tempdir()?,
        tag: format!("bench{}", std::process::id()),
        partitions: args.partitions,
        sink: args.sink,
    };
    if wanted("throughput") {
        bench.throughput((args.millions * 1e6) as u64)?;
    }
    if wanted("latency") {
        for delivery in ["at_least_once", "exactly_once"] {
            bench.latency(delivery, args.rate, args.seconds)?;
        }
    }
    if wanted("kill") {
        for _ in 0..3 {
            bench.kill()?;
        }
    }
    Ok(())
}

struct Bench {
    brokers: String,
    folder: tempfile::TempDir,
    tag: String,
    partitions: i32,
    /// More settings of the sinks.
    sink: String,
}

/// What goes out.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    /// One-minute bars with indicators.
    Bars,
    /// Every trade with indicators, and the bars.
    Trades,
}

impl Bench {
    fn topic(&self, name: &str) -> Outcome<String> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let topic = format!("{}-{name}-{}", self.tag, COUNT.fetch_add(1, Ordering::Relaxed));
        let admin: AdminClient<DefaultClientContext> = self.config().create()?;
        let new =
            NewTopic::new(&topic, self.partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
        let made = admin.create_topics([&new], &AdminOptions::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime
            .block_on(made)?
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(|(topic, code)| format!("{topic}: {code}"))?;
        Ok(topic)
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn producer(&self) -> Outcome<ThreadedProducer<DefaultProducerContext>> {
        let mut config = self.config();
        config
            .set("linger.ms", "0")
            .set("queue.buffering.max.messages", "1000000")
            .set("socket.nagle.disable", "true");
        Ok(config.create()?)
    }

    fn graph(&self, shape: Shape, from: &str, out: &str, delivery: &str, stop: &str) -> Outcome<PathBuf> {
        let Self { brokers, sink: more, .. } = self;
        let sink = |name: &str, node: &str| {
            format!(
                "  {name}: {{ kind: kafka, from: {node}, with: {{ brokers: \"{brokers}\", topic: {out}, key: [symbol], delivery: {delivery}{more} }} }}\n"
            )
        };
        let bars = "  bars: { kind: bars, from: trades, with: { every: 1m, by: [symbol] } }\n\
                    \x20 of_bars: { kind: indicators, from: bars, with: { by: [symbol], add: { macd: {}, rsi: { period: 14 }, bollinger: {}, atr: { period: 14 } } } }\n";
        let trades =
            format!("  of_trades: {{ kind: indicators, from: trades, with: {{ by: [symbol], {FIVE} }} }}\n");
        let (operators, sinks) = match shape {
            Shape::Bars => (bars.to_owned(), sink("signals", "of_bars")),
            Shape::Trades => (
                format!("{bars}{trades}"),
                format!("{}{}", sink("signals", "of_bars"), sink("studies", "of_trades")),
            ),
        };
        let text = format!(
            "dataflow: {out}\nversion: 1\nsources:\n  trades: {{ kind: kafka, with: {{ brokers: \"{brokers}\", topic: {from}, format: json, \
             schema: {{ ts: timestamp, symbol: symbol, price: f64, size: f64, sent: i64 }}, keyed_by: [symbol], stop: {stop} }} }}\n\
             operators:\n{operators}sinks:\n{sinks}"
        );
        let path = self.folder.path().join(format!("{out}.yaml"));
        std::fs::write(&path, text)?;
        Ok(path)
    }

    fn job(&self, graph: &Path) -> Outcome<Job> {
        let me = std::env::current_exe()?;
        let tidemill = me.parent().ok_or("this program is in no folder")?.join("tidemill");
        let log = std::fs::File::create(graph.with_extension("log"))?;
        let child = Command::new(&tidemill)
            .arg("run")
            .arg(graph)
            .args(["--progress", "off"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| {
                format!("{}: {e}; build it with cargo build --release --workspace", tidemill.display())
            })?;
        Ok(Job(child, graph.with_extension("log")))
    }

    /// Reads all that is in the topic, and all that comes until `stop`; gives `on` each payload.
    fn consume(
        &self,
        topic: &str,
        committed: bool,
        stop: &AtomicBool,
        mut on: impl FnMut(&[u8]),
    ) -> Outcome<u64> {
        let mut config = self.config();
        config
            .set("group.id", &self.tag)
            .set("isolation.level", if committed { "read_committed" } else { "read_uncommitted" })
            .set("enable.auto.commit", "false")
            .set("fetch.queue.backoff.ms", "5");
        let consumer: BaseConsumer = config.create()?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..self.partitions {
            assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        let mut count = 0;
        let mut quiet = Clock::System.start();
        loop {
            match consumer.poll(Duration::from_millis(20)) {
                Some(message) => {
                    let message = message?;
                    on(message.payload().unwrap_or_default());
                    count += 1;
                    quiet = Clock::System.start();
                }
                None if stop.load(Ordering::Acquire) && quiet.elapsed() > Duration::from_millis(1500) => {
                    return Ok(count);
                }
                None => {}
            }
        }
    }

    fn throughput(&self, rows: u64) -> Outcome<()> {
        let from = self.topic("in")?;
        let clock = Clock::System.start();
        let producer = self.producer()?;
        // A minute of event time is 60 000 rows; all of it lies in the past.
        let first = Clock::System.now_ns() - rows as i64 * 1_000_000;
        let mut text = String::new();
        for i in 0..rows {
            send(&producer, &from, &mut text, i, first + i as i64 * 1_000_000, 0)?;
        }
        producer.flush(Duration::from_secs(120))?;
        println!("made {rows} messages of {} bytes in {:.1} s", text.len(), clock.elapsed().as_secs_f64());
        for (shape, what) in
            [(Shape::Bars, "bars with indicators out"), (Shape::Trades, "every trade with indicators out")]
        {
            for (delivery, target) in [("at_least_once", 200.0), ("exactly_once", 120.0)] {
                let mut rates = Vec::new();
                let mut written = 0;
                for _ in 0..3 {
                    let out = self.topic("out")?;
                    let graph = self.graph(shape, &from, &out, delivery, "end")?;
                    let clock = Clock::System.start();
                    self.job(&graph)?.wait()?;
                    rates.push(rows as f64 / clock.elapsed().as_secs_f64() / 1e3);
                    written = self.consume(&out, true, &AtomicBool::new(true), |_| ())?;
                    if shape == Shape::Trades && written < rows {
                        return Err(format!("{written} rows came out of {rows}").into());
                    }
                }
                rates.sort_by(f64::total_cmp);
                println!(
                    "{what}, {delivery}: best {:.0}, median {:.0} k msg/s in (target {target:.0}), {written} messages out, whole process timed, load {}",
                    rates[rates.len() - 1],
                    rates[rates.len() / 2],
                    load()
                );
            }
        }
        Ok(())
    }

    fn latency(&self, delivery: &str, rate: u64, seconds: u64) -> Outcome<()> {
        let (from, out) = (self.topic("in")?, self.topic("out")?);
        let mut job = self.job(&self.graph(Shape::Trades, &from, &out, delivery, "never")?)?;
        let stop = Arc::new(AtomicBool::new(false));
        let start = Clock::System.now_ns();
        let warm = start + WARM_UP.as_nanos() as i64;
        let mut micros: Vec<u32> = Vec::with_capacity((rate * seconds) as usize);
        let sent = std::thread::scope(|scope| -> Outcome<u64> {
            let feeding = scope.spawn(|| self.feed(&from, rate, seconds, &stop));
            self.consume(&out, delivery == "exactly_once", &stop, |payload| {
                // Bars have no `sent`.
                if let Some(sent) = field(payload, b"\"sent\":")
                    && sent >= warm
                {
                    micros
                        .push(((Clock::System.now_ns() - sent) / 1000).clamp(0, i64::from(u32::MAX)) as u32);
                }
            })?;
            feeding.join().map_err(|_| "the producer panicked")?
        })?;
        job.stop()?;
        micros.sort_unstable();
        if micros.is_empty() {
            return Err(format!("no rows came out; {}", job.log()).into());
        }
        let at = |q: f64| f64::from(micros[((micros.len() - 1) as f64 * q) as usize]) / 1e3;
        let expected = sent.saturating_sub(rate * WARM_UP.as_secs());
        println!(
            "latency at {rate} msg/s, {delivery}: p50 {:.2} ms, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.1} ({} of about {expected} rows; targets: p50 < 5, p99 < {}; load {})",
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            at(1.0),
            micros.len(),
            if delivery == "exactly_once" { 60 } else { 25 },
            load()
        );
        Ok(())
    }

    /// Produces at a steady rate, a millisecond's worth at a time.
    fn feed(&self, topic: &str, rate: u64, seconds: u64, stop: &AtomicBool) -> Outcome<u64> {
        let producer = self.producer()?;
        let started = Clock::System.start();
        let (mut i, mut text) = (0, String::new());
        while started.elapsed() < Duration::from_secs(seconds) && !stop.load(Ordering::Acquire) {
            let due = (started.elapsed().as_secs_f64() * rate as f64) as u64;
            while i < due {
                let now = Clock::System.now_ns();
                send(&producer, topic, &mut text, i, now, now)?;
                i += 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        producer.flush(Duration::from_secs(10))?;
        stop.store(true, Ordering::Release);
        Ok(i)
    }

    /// kill -9, start again, and the time until the consumer has a row that was sent after the kill.
    fn kill(&self) -> Outcome<()> {
        let (from, out) = (self.topic("in")?, self.topic("out")?);
        let graph = self.graph(Shape::Trades, &from, &out, "exactly_once", "never")?;
        let mut job = self.job(&graph)?;
        let stop = AtomicBool::new(false);
        let killed = AtomicU64::new(0);
        let back = AtomicU64::new(0);
        std::thread::scope(|scope| -> Outcome<()> {
            let feeding = scope.spawn(|| self.feed(&from, 2000, 60, &stop));
            let reading = scope.spawn(|| {
                self.consume(&out, true, &stop, |payload| {
                    let killed = killed.load(Ordering::Acquire) as i64;
                    if killed > 0 && field(payload, b"\"sent\":").is_some_and(|sent| sent > killed) {
                        let _ = back.compare_exchange(
                            0,
                            Clock::System.now_ns() as u64,
                            Ordering::AcqRel,
                            Ordering::Relaxed,
                        );
                    }
                })
            });
            // Past the first checkpoint, which comes after ten seconds.
            std::thread::sleep(Duration::from_secs(13));
            job.0.kill()?;
            job.0.wait()?;
            killed.store(Clock::System.now_ns() as u64, Ordering::Release);
            job = self.job(&graph)?;
            let waited = Clock::System.start();
            while back.load(Ordering::Acquire) == 0 && waited.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(5));
            }
            stop.store(true, Ordering::Release);
            let _ = feeding.join();
            let _ = reading.join();
            Ok(())
        })?;
        job.stop()?;
        let seconds = match back.load(Ordering::Acquire) {
            0 => return Err(format!("no row came back; {}", job.log()).into()),
            at => (at - killed.load(Ordering::Acquire)) as f64 / 1e9,
        };
        println!(
            "kill -9 to the first new row, exactly_once, 2000 msg/s: {seconds:.2} s (target < 3; load {})",
            load()
        );
        Ok(())
    }
}

/// A running `tidemill`; killed when dropped.
struct Job(Child, PathBuf);

impl Job {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.1).unwrap_or_default()
    }

    fn wait(&mut self) -> Outcome<()> {
        let status = self.0.wait()?;
        if status.success() { Ok(()) } else { Err(format!("tidemill {status}: {}", self.log()).into()) }
    }

    /// Ends it in order.
    fn stop(&mut self) -> Outcome<()> {
        Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status()?;
        self.wait()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends trade `i`.
fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    text: &mut String,
    i: u64,
    ts: i64,
    sent: i64,
) -> Outcome<()> {
    use std::fmt::Write;
    let symbol = format!("S{:04}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & (SYMBOLS - 1));
    text.clear();
    write!(
        text,
        r#"{{"ts":{ts},"symbol":"{symbol}","price":{}.{:02},"size":{},"sent":{sent}}}"#,
        100 + i / 7 % 5,
        i * 13 % 100,
        1 + i % 500
    )?;
    let mut record = BaseRecord::to(topic).key(&symbol).payload(text.as_str());
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// The integer behind `name` in a JSON object.
fn field(payload: &[u8], name: &[u8]) -> Option<i64> {
    let at = payload.windows(name.len()).position(|w| w == name)? + name.len();
    let digits = payload[at..].iter().take_while(|b| b.is_ascii_digit()).count();
    std::str::from_utf8(&payload[at..at + digits]).ok()?.parse().ok()
}
