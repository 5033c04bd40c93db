//! What the integration tests share: the kinds of every room, and graphs read and planned.

use std::path::{Path, PathBuf};

use tidemill_engine::clock::Clock;
use tidemill_engine::plan::{self, Plan};
use tidemill_engine::registry::Registry;
use tidemill_engine::spec::{Spec, SpecErrors};

pub mod alpaca_server;
pub mod broker_proxy;
pub mod patience;
pub mod storage_proxy;

/// Every kind.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    tidemill_connectors::register(&mut registry);
    tidemill_operators::register(&mut registry);
    tidemill_sinks::register(&mut registry);
    registry
}

/// The root of the repository.
pub fn root() -> PathBuf {
    // Asked when the test runs: another checkout may have compiled it.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    package.parent().map(Path::to_owned).unwrap_or_default()
}

/// Reads and plans a graph from text with an empty environment; `base` is where its relative paths
/// start, `file` what messages call it.
pub async fn plan_text(
    text: &str,
    file: &str,
    base: &Path,
    registry: &Registry,
) -> Result<(Spec, Plan), SpecErrors> {
    let (spec, mut errors) = Spec::parse_lenient(text, file, &[], &|_| None)?;
    match plan::plan(&spec, registry, base.to_owned(), Clock::default()).await {
        Ok(plan) if errors.is_empty() => Ok((spec, plan)),
        Ok(_) => Err(errors),
        Err(problems) => {
            errors.extend(spec.errors(problems));
            Err(errors)
        }
    }
}

/// The folder of real market data, or `None` where it is absent (said loudly; a failure in CI).
pub fn data() -> Option<PathBuf> {
    let folder =
        std::env::var_os("TIDEMILL_DATA").map_or_else(|| root().join("../shared/data"), PathBuf::from);
    if folder.is_dir() {
        return folder.canonicalize().ok();
    }
    skipped(&format!("no market data in {}", folder.display()));
    None
}

/// Says loudly that a test did not run; a failure in CI.
pub fn skipped(reason: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "in CI nothing may be skipped: {reason}");
    eprintln!("SKIPPED, NOT TESTED: {reason}");
    if let Some(log) = std::env::var_os("TIDEMILL_SKIPPED_LOG")
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(log)
    {
        use std::io::Write;
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let _ = writeln!(file, "{name}: {reason}");
    }
}

/// The S3 server's address (`host:port`) and its bucket, or `None` where there is none (said loudly; a failure in CI).
pub fn s3() -> Option<(String, String)> {
    let (url, bucket) =
        (std::env::var("TIDEMILL_TEST_S3").ok(), std::env::var("TIDEMILL_TEST_S3_BUCKET").ok());
    if url.is_none() || bucket.is_none() {
        skipped("no S3: scripts/services start s3; eval \"$(scripts/services env)\"");
    }
    Some((url?.trim_start_matches("http://").to_owned(), bucket?))
}

/// The Kafka broker's address, or `None` where there is none (said loudly; a failure in CI).
pub fn kafka() -> Option<String> {
    let address = std::env::var("TIDEMILL_TEST_KAFKA").ok();
    if address.is_none() {
        skipped("no Kafka: scripts/services start kafka; eval \"$(scripts/services env)\"");
    }
    address
}

/// The Schema Registry's address, or `None` where there is none (said loudly; a failure in CI).
pub fn schema_registry() -> Option<String> {
    let address = std::env::var("TIDEMILL_TEST_REGISTRY").ok();
    if address.is_none() {
        skipped("no Schema Registry: scripts/services start registry; eval \"$(scripts/services env)\"");
    }
    address
}

/// A Python with other people's implementations, or `None` where there is none (said loudly; a failure in CI).
pub fn python() -> Option<PathBuf> {
    let python = std::env::var_os("TIDEMILL_TEST_PYTHON").map(PathBuf::from);
    if python.is_none() {
        skipped("no Python: export TIDEMILL_TEST_PYTHON=\"$(scripts/python)\"");
    }
    python
}

/// The `tidemill` binary that was built beside the tests.
pub fn binary() -> PathBuf {
    let deps = std::env::current_exe().unwrap_or_default();
    let folder = deps.parent().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
    let binary = folder.join("tidemill");
    assert!(
        binary.is_file(),
        "{} is missing: run `cargo build --workspace` first (make test does)",
        binary.display()
    );
    binary
}

/// A shipped graph's text.
pub fn dataflow(name: &str) -> String {
    let path = root().join("dataflows").join(format!("{name}.yaml"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Replaces the whole stanza `  name:` (in two-space indentation) of a graph by `stanza`.
pub fn with_node(graph: &str, name: &str, stanza: &str) -> String {
    let mut out = String::new();
    let mut skipping = false;
    let mut found = false;
    for line in graph.lines() {
        let indent = line.len() - line.trim_start().len();
        if skipping && (indent > 2 || line.trim().is_empty()) {
            continue;
        }
        skipping = line.starts_with(&format!("  {name}:"));
        if skipping {
            found = true;
            out.push_str(stanza.trim_end());
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    assert!(found, "the graph has no node `{name}`");
    out
}

/// A name that no other test run has used: topics live as long as the broker.
pub fn unique(name: &str) -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("{name}_{}_{n}_{}", std::process::id(), Clock::System.now_ns() % 1_000_000_007)
}

/// Runs a future on a runtime of its own.
pub fn wait_for<F: std::future::Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.unwrap_or_else(|e| panic!("no async runtime: {e}")).block_on(future)
}

/// A seeded generator (SplitMix64), so that a failure can be repeated.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `range`.
    pub fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.next_u64() % (range.end - range.start).max(1)
    }
}
