//! `tidemill sql-server`: the archive as Postgres clients see one.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tidemill_engine::duration::Span;
use tidemill_sql::server::{Access, CONNECTIONS_MAX, Passwords, Server, ServerConfig, TlsFiles};
use tidemill_sql::{Engine, EngineConfig};
use tokio_util::sync::CancellationToken;

/// Answers psql, Grafana and drivers over the Postgres protocol, read-only
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The archive whose datasets are the tables: a path, s3://, gs://, az:// or file://
    #[arg(long, value_name = "URL", env = "TIDEMILL_ARCHIVE")]
    archive: Option<String>,
    /// Makes files a table; may be given several times
    #[arg(long = "table", value_name = "NAME=PATH", value_parser = super::assignment)]
    tables: Vec<(String, String)>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5433")]
    listen: String,
    /// Users, one `user:password` a line; only its owner may read the file
    #[arg(long, value_name = "FILE", conflicts_with = "trust", required_unless_present = "trust")]
    password_file: Option<PathBuf>,
    /// Lets everybody in; on loopback only
    #[arg(long)]
    trust: bool,
    /// The server's certificate in PEM, with those that vouch for it
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// What all queries at once may hold in memory, such as 512MiB or 8GiB
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<usize>,
    /// Clients at once
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS_MAX)]
    max_connections: usize,
    /// How long a statement may take where its client says nothing, such as 30s; 0 is for ever
    #[arg(long, value_name = "TIME", default_value = "0")]
    statement_timeout: Span,
}

/// A number of bytes: 512MiB, 8GiB, 8GB.
fn memory(text: &str) -> Result<usize, String> {
    const UNITS: [(&str, u64); 9] = [
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("b", 1),
    ];
    let lower = text.trim().to_ascii_lowercase();
    let (number, scale) = UNITS
        .iter()
        .find_map(|(unit, scale)| Some((lower.strip_suffix(unit)?, *scale)))
        .ok_or("write a number and its unit, such as 512MiB or 8GiB")?;
    let number: f64 =
        number.trim().parse().map_err(|_| "write a number and its unit, such as 512MiB or 8GiB")?;
    let bytes = number * scale as f64;
    if bytes.is_nan() || bytes < 16.0 * 1_048_576.0 || bytes > usize::MAX as f64 / 2.0 {
        return Err(
            "less than 16 MiB is too little for queries that spill, and more than there is too much".into()
        );
    }
    Ok(bytes as usize)
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let served = runtime.block_on(serve(args));
    runtime.shutdown_background();
    served.map(|()| ExitCode::SUCCESS)
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let mut config = EngineConfig { archive: args.archive, ..EngineConfig::default() };
    if let Some(memory) = args.memory {
        config.memory_limit_bytes = memory;
    }
    let engine = Engine::open(config).await?;
    for (name, path) in &args.tables {
        engine.add_table(name, path).await?;
    }
    let access = match &args.password_file {
        Some(file) => Access::Passwords(Passwords::read(file)?),
        None => Access::Trust,
    };
    let timeout = args.statement_timeout.std();
    let config = ServerConfig {
        listen: resolve(&args.listen)?,
        access,
        tls: args.tls_cert.zip(args.tls_key).map(|(cert, key)| TlsFiles { cert, key }),
        connections_max: args.max_connections,
        statement_timeout: (timeout > Duration::ZERO).then_some(timeout),
    };
    let server = Server::bind(engine, config).await?;
    println!("listening on {}", server.address());
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        interrupted().await;
        tracing::info!("stopping");
        asked.cancel();
    });
    server.run(stop).await;
    Ok(())
}

fn resolve(listen: &str) -> anyhow::Result<SocketAddr> {
    listen
        .to_socket_addrs()
        .with_context(|| format!("cannot listen on `{listen}`: write HOST:PORT"))?
        .next()
        .with_context(|| format!("cannot listen on `{listen}`: it has no address"))
}

/// Returns at Ctrl-C or SIGTERM.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(memory("512MiB"), Ok(512 << 20));
        assert_eq!(memory("1.5 GiB"), Ok(3 << 29));
        assert_eq!(memory("8gb"), Ok(8_000_000_000));
        for wrong in ["", "8", "GiB", "-1GiB", "1kb", "nanGiB"] {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
    }
}
