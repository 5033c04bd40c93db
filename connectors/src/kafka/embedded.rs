//! The broker behind `brokers: embedded`: librdkafka's own mock cluster, once per process.
//!
//! It speaks the real protocol on a port of localhost, so `kcat` can read it while the process
//! runs. It is for laptops and demos: everything is in memory, a partition keeps its last 5 MB or
//! 100,000 messages, aborted transactions are not hidden from readers, and all is gone when the process ends.

use std::sync::{Mutex, OnceLock, PoisonError, mpsc};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::mocking::MockCluster;
use tidemill_engine::connector::ConnectorError;

struct Embedded {
    address: String,
    requests: Mutex<mpsc::Sender<Request>>,
}

struct Request {
    topic: String,
    partitions: i32,
    reply: mpsc::Sender<Result<bool, KafkaError>>,
}

static EMBEDDED: OnceLock<Result<Embedded, String>> = OnceLock::new();

/// The address of the in-process broker, which the first call starts.
pub fn embedded_address() -> Result<String, ConnectorError> {
    Ok(embedded()?.address.clone())
}

/// Creates `topic` there; false where it exists.
pub fn create_topic(topic: &str, partitions: usize) -> Result<bool, ConnectorError> {
    let embedded = embedded()?;
    let (reply, answer) = mpsc::channel();
    let request =
        Request { topic: topic.to_owned(), partitions: i32::try_from(partitions).unwrap_or(i32::MAX), reply };
    let sent = embedded.requests.lock().unwrap_or_else(PoisonError::into_inner).send(request);
    let gone = || ConnectorError::Fatal("the embedded kafka broker has stopped".into());
    sent.map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?.map_err(|e| {
        ConnectorError::fatal(format!("cannot create topic `{topic}` on the embedded kafka broker"), e)
    })
}

fn embedded() -> Result<&'static Embedded, ConnectorError> {
    let started = EMBEDDED.get_or_init(start);
    started.as_ref().map_err(|e| ConnectorError::fatal("cannot start the embedded kafka broker", e))
}

/// The cluster's handle may not move between threads, so one thread keeps it.
fn start() -> Result<Embedded, String> {
    let (requests, inbox) = mpsc::channel::<Request>();
    let (ready, started) = mpsc::channel();
    let keeper = move || {
        let cluster = match MockCluster::new(1) {
            Ok(cluster) => cluster,
            Err(error) => {
                let _ = ready.send(Err(error.to_string()));
                return;
            }
        };
        let _ = ready.send(Ok(cluster.bootstrap_servers()));
        // Asking twice is not an error here, as it is with librdkafka.
        for Request { topic, partitions, reply } in inbox {
            let result = match cluster.create_topic(&topic, partitions, 1) {
                Ok(()) => Ok(true),
                Err(KafkaError::MockCluster(RDKafkaErrorCode::TopicAlreadyExists)) => Ok(false),
                Err(error) => Err(error),
            };
            let _ = reply.send(result);
        }
    };
    std::thread::Builder::new().name("kafka-embedded".into()).spawn(keeper).map_err(|e| e.to_string())?;
    let address = started.recv().map_err(|e| e.to_string())??;
    tracing::info!("embedded kafka broker listens on {address}: kcat -b {address} -L");
    Ok(Embedded { address, requests: Mutex::new(requests) })
}
