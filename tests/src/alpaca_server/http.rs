//! The REST side: what a request meets on its way, and its answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, DATE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tidemill_engine::clock::Clock;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::book::Answer;
use super::faults::Fate;
use super::{KEY, SECRET, Shared, lock, stream};

/// The connection is cut.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut")
    }
}

impl std::error::Error for Cut {}

pub(super) async fn client(socket: TcpStream, shared: Arc<Shared>) {
    let stop = shared.stop.clone();
    let service = service_fn(move |request| answer(request, shared.clone()));
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::select! {
        () = stop.cancelled() => {}
        _ = connection => {}
    }
}

/// An answer, with the time that the venue's clock shows.
async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Full<Bytes>>, Cut> {
    let mut answer = said(request, shared.clone()).await?;
    let now = Clock::System.now_ns() + lock(&shared.faults).ahead_s * 1_000_000_000;
    let now = chrono::DateTime::from_timestamp_nanos(now).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let Ok(now) = now.parse() {
        answer.headers_mut().insert(DATE, now);
    }
    Ok(answer)
}

async fn said(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Full<Bytes>>, Cut> {
    if request.headers().contains_key(UPGRADE) {
        return Ok(upgrade(request, shared));
    }
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let known = header("apca-api-key-id").as_deref() == Some(KEY)
        && header("apca-api-secret-key").as_deref() == Some(SECRET);
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let pairs = request.uri().query().unwrap_or_default().split('&').filter_map(|p| p.split_once('='));
    let query: BTreeMap<String, String> = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let body = request.into_body().collect().await.map_err(|_| Cut)?.to_bytes();
    let plain: String = path.split('/').filter(|part| part.len() < 36).collect::<Vec<_>>().join("/");
    let number = {
        let mut requests = lock(&shared.requests);
        let count = requests.entry(format!("{method} {plain}")).or_default();
        *count += 1;
        *count
    };
    if !known {
        return Ok(json((
            401,
            serde_json::json!({ "code": 40_110_000, "message": "request is not authorized" }),
        )));
    }
    if method == "GET" {
        let deaf = {
            let mut faults = lock(&shared.faults);
            let down = faults.positions_down && path.starts_with("/v2/positions/");
            if down { Some(500) } else { faults.deaf() }
        };
        return match deaf {
            Some(0) => Err(Cut),
            Some(429) => Ok(busy()),
            Some(status) => Ok(json((
                status,
                serde_json::json!({ "code": 50_010_000, "message": "internal server error" }),
            ))),
            None => Ok(json(lock(&shared.book).get(&path, &query))),
        };
    }
    // What a client has sent arrives, whether it still waits for the answer or not.
    tokio::spawn(change(method, path, body, number, shared)).await.unwrap_or(Err(Cut))
}

/// A request that changes something.
async fn change(
    method: String,
    path: String,
    body: Bytes,
    number: u64,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Cut> {
    let (fate, patience) = {
        let mut faults = lock(&shared.faults);
        (faults.fate(), faults.patience)
    };
    let watch = |moment: &str| {
        if let Some(watch) = &*lock(&shared.watch) {
            watch(moment, &method, number);
        }
    };
    watch("before");
    let take = || {
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let id = path.strip_prefix("/v2/orders/").unwrap_or_default();
        let (answer, told) = {
            let mut book = lock(&shared.book);
            match method.as_str() {
                "POST" => book.post(&body),
                "PATCH" => book.patch(id, &body),
                _ => book.delete(id),
            }
        };
        for text in told {
            let _ = shared.updates.send(text);
        }
        watch("after");
        answer
    };
    match fate {
        Fate::Fine => Ok(json(take())),
        Fate::TakenThenCut => {
            take();
            Err(Cut)
        }
        Fate::Cut => Err(Cut),
        Fate::TakenThen500 => {
            take();
            Ok(json((
                500,
                serde_json::json!({ "code": 50_010_000, "message": "internal server error occurred" }),
            )))
        }
        Fate::Unavailable => {
            let mut response = Response::new(Full::new(Bytes::from_static(b"<html>no backend</html>")));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            Ok(response)
        }
        Fate::TakenThenSilence => {
            take();
            tokio::time::sleep(patience * 3).await;
            Err(Cut)
        }
        Fate::LateArrival => {
            tokio::time::sleep(patience + Duration::from_millis(120)).await;
            Ok(json(take()))
        }
        Fate::TooMany => Ok(busy()),
        Fate::Refused => Ok(json((
            403,
            serde_json::json!({ "code": 40_310_000, "message": "insufficient qty available for order" }),
        ))),
        Fate::HalfAnswer => {
            let (status, body) = take();
            let text = body.to_string();
            let mut response = Response::new(Full::new(Bytes::from(text[..text.len() / 2].to_owned())));
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            Ok(response)
        }
    }
}

fn busy() -> Response<Full<Bytes>> {
    let mut response =
        json((429, serde_json::json!({ "code": 42_910_000, "message": "rate limit exceeded" })));
    response.headers_mut().insert("retry-after", hyper::header::HeaderValue::from_static("0"));
    response
}

fn json((status, body): Answer) -> Response<Full<Bytes>> {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    response
}

fn upgrade(mut request: Request<Incoming>, shared: Arc<Shared>) -> Response<Full<Bytes>> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let Some(key) = key.filter(|_| request.uri().path() == "/stream") else {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(&mut request).await {
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            let stop = shared.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = stream::serve(socket, shared) => {}
            }
        }
    });
    let switched = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, key)
        .body(Full::default());
    switched.unwrap_or_default()
}
