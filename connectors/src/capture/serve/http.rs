//! The HTTP side of a served capture: recorded answers, and the way into a WebSocket.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{State, lock, path_of, socket};

/// Answers one client until it leaves.
pub(super) async fn client(stream: TcpStream, state: Arc<State>) {
    let stop = state.stop.clone();
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(request, &state)) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        () = stop.cancelled() => {}
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!("a client is gone: {error}");
            }
        }
    }
}

fn answer(mut request: Request<Incoming>, state: &Arc<State>) -> Response<Full<Bytes>> {
    let path = path_of(&request.uri().to_string());
    let path =
        if path == "/" && request.uri().path() != "/" { request.uri().path().to_owned() } else { path };
    let upgrade =
        request.headers().get(UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !upgrade {
        return recorded(&path, state);
    }
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()))
    else {
        return plain(StatusCode::BAD_REQUEST, "the handshake has no key");
    };
    if !lock(&state.routes).contains_key(&path) {
        return plain(StatusCode::NOT_FOUND, "the capture has no such connection");
    }
    let state = state.clone();
    tokio::spawn(async move {
        let stop = state.stop.clone();
        match hyper::upgrade::on(&mut request).await {
            Ok(upgraded) => {
                let io = TokioIo::new(upgraded);
                let websocket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = socket::serve(websocket, &path, &state) => {}
                }
            }
            Err(error) => tracing::debug!("a client is gone: {error}"),
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

fn recorded(path: &str, state: &State) -> Response<Full<Bytes>> {
    lock(&state.served).requests += 1;
    let mut answers = lock(&state.answers);
    let Some(of) = answers.get_mut(path) else {
        return plain(StatusCode::NOT_FOUND, "{\"error\":\"the capture has no such answer\"}");
    };
    let i = of.given.min(of.all.len().saturating_sub(1));
    of.given += 1;
    match of.all.get(i) {
        // No answer had come: the nearest to that which HTTP has.
        Some((0, _)) | None => plain(StatusCode::GATEWAY_TIMEOUT, ""),
        Some((status, body)) => {
            let mut response = Response::new(Full::new(body.clone()));
            *response.status_mut() = StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY);
            response
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
