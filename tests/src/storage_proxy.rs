//! An HTTP proxy in front of an S3 server, whose answers fail, come late or get lost.
//!
//! Requests are passed on with their headers as they are (`Host` included: it is signed).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// What happens to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StorageFault {
    /// They are passed on.
    #[default]
    None,
    /// The server is not asked: 503.
    Unavailable,
    /// The server is asked after a wait.
    Slow(Duration),
    /// The server does as it was asked, but the connection closes before its answer.
    LostAnswer,
}

#[derive(Debug, Default)]
struct Schedule {
    fault: StorageFault,
    /// Requests that pass before the first fault.
    skip: u64,
    /// Faults left.
    count: u64,
    /// Faults that have happened.
    injected: u64,
}

/// The proxy; it listens as long as its runtime lives.
#[derive(Debug)]
pub struct StorageProxy {
    /// Where it listens.
    pub address: SocketAddr,
    schedule: Arc<Mutex<Schedule>>,
}

impl StorageProxy {
    /// A proxy of the server at `upstream` (`host:port`).
    pub async fn start(upstream: String) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let schedule: Arc<Mutex<Schedule>> = Arc::default();
        let shared = schedule.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(client(socket, upstream.clone(), shared.clone()));
            }
        });
        Ok(Self { address, schedule })
    }

    /// From now on, `skip` requests pass, then `count` meet `fault`, then all pass again.
    pub fn set(&self, fault: StorageFault, skip: u64, count: u64) {
        let mut schedule = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        *schedule = Schedule { fault, skip, count, injected: schedule.injected };
    }

    /// How many requests have met a fault.
    pub fn injected(&self) -> u64 {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner).injected
    }
}

fn next(schedule: &Mutex<Schedule>) -> StorageFault {
    let mut schedule = schedule.lock().unwrap_or_else(PoisonError::into_inner);
    if schedule.fault == StorageFault::None || schedule.count == 0 {
        return StorageFault::None;
    }
    if schedule.skip > 0 {
        schedule.skip -= 1;
        return StorageFault::None;
    }
    schedule.count -= 1;
    schedule.injected += 1;
    schedule.fault
}

async fn client(socket: TcpStream, upstream: String, schedule: Arc<Mutex<Schedule>>) {
    let service = service_fn(move |request| answer(request, upstream.clone(), schedule.clone()));
    // An error closes the connection, which is what a lost answer looks like.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
}

async fn answer(
    request: Request<Incoming>,
    upstream: String,
    schedule: Arc<Mutex<Schedule>>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let fault = next(&schedule);
    match fault {
        StorageFault::Unavailable => {
            // The body is read, so that the client can use the connection again.
            let _ = request.into_body().collect().await;
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return Ok(response);
        }
        StorageFault::Slow(time) => tokio::time::sleep(time).await,
        StorageFault::None | StorageFault::LostAnswer => {}
    }
    let response = forward(request, &upstream).await.map_err(std::io::Error::other)?;
    match fault {
        StorageFault::LostAnswer => Err(std::io::Error::other("the answer is lost")),
        _ => Ok(response),
    }
}

async fn forward(request: Request<Incoming>, upstream: &str) -> Result<Response<Full<Bytes>>, String> {
    let fail = |e: &dyn std::fmt::Display| format!("the server at {upstream} does not answer: {e}");
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|e| fail(&e))?.to_bytes();
    let socket = TcpStream::connect(upstream).await.map_err(|e| fail(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(socket))
            .await
            .map_err(|e| fail(&e))?;
    tokio::spawn(connection);
    let answered = sender.send_request(Request::from_parts(head, Full::new(body))).await;
    let (head, body) = answered.map_err(|e| fail(&e))?.into_parts();
    let body = body.collect().await.map_err(|e| fail(&e))?.to_bytes();
    Ok(Response::from_parts(head, Full::new(body)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A server that counts what reaches it: it answers every request with 200 and `ok`.
    async fn counting_server() -> std::io::Result<(SocketAddr, Arc<Mutex<u64>>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let count: Arc<Mutex<u64>> = Arc::default();
        let counted = count.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let counted = counted.clone();
                let service = service_fn(move |_: Request<Incoming>| {
                    *counted.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                    async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok")))) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        Ok((address, count))
    }

    async fn get(address: SocketAddr) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        let _ = socket.read_to_string(&mut text).await;
        text
    }

    #[tokio::test]
    async fn faults_come_when_they_are_due_and_a_lost_answer_was_a_request() {
        let (server, reached) = counting_server().await.unwrap();
        let proxy = StorageProxy::start(server.to_string()).await.unwrap();
        let reached = || *reached.lock().unwrap();
        assert!(get(proxy.address).await.contains("200 OK"));
        proxy.set(StorageFault::Unavailable, 1, 1);
        assert!(get(proxy.address).await.contains("200 OK"));
        assert!(get(proxy.address).await.contains("503"));
        assert!(get(proxy.address).await.contains("200 OK"));
        assert_eq!((reached(), proxy.injected()), (3, 1));
        proxy.set(StorageFault::LostAnswer, 0, 1);
        assert_eq!(get(proxy.address).await, "");
        assert_eq!((reached(), proxy.injected()), (4, 2));
    }
}
