//! A TCP proxy in front of a Kafka broker, whose connections break, get slow or lose an answer.
//!
//! A broker tells its clients its advertised address, which would lead them past the proxy. So the proxy reads the
//! broker's answers as frames and puts its own port in place of the broker's wherever the advertised host is followed
//! by that port, as metadata and coordinator answers have it: both are as long as before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Only short answers hold addresses; those with rows are passed on unseen.
const ADDRESSED_MAX: usize = 1 << 16;

#[derive(Debug, Default)]
struct Faults {
    /// Milliseconds that each answer waits.
    delay_ms: AtomicU64,
    /// Answers that are still to be lost, with their connections.
    lose: AtomicU64,
}

/// The proxy; it listens as long as its runtime lives.
#[derive(Debug)]
pub struct BrokerProxy {
    /// Where it listens.
    pub address: SocketAddr,
    cut: watch::Sender<u64>,
    faults: Arc<Faults>,
}

impl BrokerProxy {
    /// A proxy of the broker that is advertised as `upstream` (`host:port`).
    pub async fn start(upstream: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (cut, cuts) = watch::channel(0);
        let faults: Arc<Faults> = Arc::default();
        let (shared, upstream) = (faults.clone(), upstream.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (upstream, faults, mut cuts) = (upstream.clone(), shared.clone(), cuts.clone());
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = relay(client, &upstream, address.port(), &faults) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Ok(Self { address, cut, faults })
    }

    /// Cuts all connections; clients may connect again.
    pub fn cut(&self) {
        self.cut.send_modify(|n| *n += 1);
    }

    /// Each answer waits for so long; zero: none does.
    pub fn delay(&self, time: Duration) {
        self.faults.delay_ms.store(time.as_millis() as u64, Ordering::Relaxed);
    }

    /// Loses the next `n` answers: the broker has done what was requested, and the connection breaks before its client
    /// knows.
    pub fn lose_answers(&self, n: u64) {
        self.faults.lose.store(n, Ordering::Relaxed);
    }
}

async fn relay(client: TcpStream, upstream: &str, port: u16, faults: &Faults) -> std::io::Result<()> {
    let broker = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (mut from_client, to_client) = client.into_split();
    let (from_broker, mut to_broker) = broker.into_split();
    let (host, broker_port) = upstream.rsplit_once(':').unwrap_or((upstream, "9092"));
    let advertised = [host.as_bytes(), &i32::from(broker_port.parse::<u16>().unwrap_or(9092)).to_be_bytes()];
    let advertised = advertised.concat();
    tokio::select! {
        done = tokio::io::copy(&mut from_client, &mut to_broker) => done.map(|_| ()),
        done = answers(from_broker, to_client, &advertised, port, faults) => done,
    }
}

async fn answers(
    mut broker: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    advertised: &[u8],
    port: u16,
    faults: &Faults,
) -> std::io::Result<()> {
    loop {
        let length = broker.read_u32().await?;
        let mut frame = vec![0; length as usize];
        broker.read_exact(&mut frame).await?;
        if frame.len() <= ADDRESSED_MAX {
            put_port(&mut frame, advertised, port);
        }
        let delay = faults.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let less = |n: u64| n.checked_sub(1);
        if faults.lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            return Ok(());
        }
        client.write_u32(length).await?;
        client.write_all(&frame).await?;
    }
}

/// Puts `port` in place of the last four bytes of each `advertised`.
fn put_port(frame: &mut [u8], advertised: &[u8], port: u16) {
    let mut at = 0;
    while at + advertised.len() <= frame.len() {
        let end = at + advertised.len();
        if &frame[at..end] == advertised {
            frame[end - 4..end].copy_from_slice(&i32::from(port).to_be_bytes());
            at = end;
        } else {
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_port_is_replaced_where_its_host_stands_before_it_and_nowhere_else() {
        let port = |n: i32| n.to_be_bytes().to_vec();
        let advertised = [b"127.0.0.1".to_vec(), port(9092)].concat();
        let mut frame =
            [&b"x"[..], &advertised, &port(9092), b"127.0.0.1", &port(9093), &advertised].concat();
        let length = frame.len();
        put_port(&mut frame, &advertised, 7);
        let changed = [b"127.0.0.1".to_vec(), port(7)].concat();
        let expected = [&b"x"[..], &changed, &port(9092), b"127.0.0.1", &port(9093), &changed].concat();
        assert_eq!((frame.len(), frame), (length, expected));
    }
}
