//! A local venue that speaks Alpaca's Trading API as it is documented, and can fail in every way a venue and a network can.
//!
//! REST and the stream of trade updates on one port. It keeps the books that tests compare with: each order that it took,
//! each position, the cash. Market orders fill at once, in two executions where the quantity allows it; limit orders fill when the test says so.
//! What goes wrong is drawn by a seed ([`Faults`]) or asked for by the test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub mod book;
pub mod faults;
mod http;
mod stream;

pub use book::{Book, Kept};
pub use faults::{Fate, Faults};

/// The key that it knows.
pub const KEY: &str = "PKTEST";
/// The secret that goes with it.
pub const SECRET: &str = "hunter2hunter2";

/// What happens to requests, counted by the test.
type Watch = Box<dyn Fn(&str, &str, u64) + Send + Sync>;

pub(crate) struct Shared {
    book: Mutex<Book>,
    faults: Mutex<Faults>,
    /// Texts for everyone who listens.
    updates: broadcast::Sender<String>,
    /// Called with method, path and number of a request that changes something, before it is taken and after.
    watch: Mutex<Option<Watch>>,
    requests: Mutex<BTreeMap<String, u64>>,
    stop: CancellationToken,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The venue; it stops when it is dropped.
pub struct AlpacaServer {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl AlpacaServer {
    /// Starts with an empty book on a free port, on the runtime this is called on.
    pub async fn start(faults: Faults) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            book: Mutex::new(Book::default()),
            faults: Mutex::new(faults),
            updates: broadcast::channel(4096).0,
            watch: Mutex::new(None),
            requests: Mutex::default(),
            stop: CancellationToken::new(),
        });
        tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { address, shared })
    }

    /// Its address as `url:`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its books.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.shared.book)
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        *lock(&self.shared.faults) = faults;
    }

    /// Calls `watch` with the moment (`before` or `after`), the method and the number of each request that changes something.
    pub fn watch(&self, watch: impl Fn(&str, &str, u64) + Send + Sync + 'static) {
        *lock(&self.shared.watch) = Some(Box::new(watch));
    }

    /// Nobody watches any more.
    pub fn unwatch(&self) {
        *lock(&self.shared.watch) = None;
    }

    /// How many requests there were, by method and path without what is behind `?` and ids.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        lock(&self.shared.requests).clone()
    }

    /// Fills an order of a client order id, a part or all of it, at a price, and tells it.
    pub fn fill(&self, client_id: &str, quantity: i64, price: &str) {
        let told = lock(&self.shared.book).fill(client_id, quantity.into(), price);
        self.tell(told);
    }

    /// Ends an order in the venue's own way (`canceled`, `expired`, `rejected`), and tells it.
    pub fn end(&self, client_id: &str, event: &str) {
        let told = lock(&self.shared.book).end(client_id, event);
        self.tell(told);
    }

    /// Sends texts to everyone who listens, as they are.
    pub fn tell(&self, told: Vec<String>) {
        for text in told {
            let _ = self.shared.updates.send(text);
        }
    }

    /// Cuts every stream.
    pub fn cut(&self) {
        let _ = self.shared.updates.send(stream::CUT.into());
    }
}

impl Drop for AlpacaServer {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                let _ = stream.set_nodelay(true);
                clients.spawn(http::client(stream, shared.clone()));
            },
            Some(_) = clients.join_next() => {}
        }
    }
}
