//! The WebSocket side of a served capture: messages at their pace, and what goes wrong with them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tidemill_engine::clock::Stopwatch;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::{Fault, Opening, State, lock};

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Serves a client from where its URL stands.
pub(super) async fn serve(mut socket: Socket, path: &str, state: &Arc<State>) {
    lock(&state.served).opened += 1;
    let Some((index, first, opening)) = next(path, state) else { return };
    if opening.waits && !spoke(&mut socket, state).await {
        leave(path, index, first, state);
        return;
    }
    let begun = state.clock.start();
    let from_ns = opening.messages.get(first).map_or(0, |(_, at, _)| *at);
    let mut order: Vec<usize> = (first..opening.messages.len()).collect();
    let mut i = 0;
    while i < order.len() {
        let (number, at, data) = &opening.messages[order[i]];
        // Messages that are due are sent in a row; what the client says meanwhile is heard later.
        if !pace(&mut socket, state, &begun, at - from_ns).await {
            return leave(path, index, order[i], state);
        }
        let fault = state.options.faults.of(*number);
        if let Some(fault) = fault {
            lock(&state.served).faults.push((*number, fault));
        }
        let sent = match fault {
            None => send(&mut socket, state, data.clone()).await,
            Some(Fault::Drop) => true,
            Some(Fault::Duplicate) => {
                send(&mut socket, state, data.clone()).await && send(&mut socket, state, data.clone()).await
            }
            Some(Fault::Reorder) => match order.get(i + 1).copied() {
                // The next one goes first and has no fault of its own then.
                Some(next) => {
                    let swapped = opening.messages[next].2.clone();
                    let sent = send(&mut socket, state, swapped).await
                        && send(&mut socket, state, data.clone()).await;
                    order.remove(i + 1);
                    sent
                }
                None => send(&mut socket, state, data.clone()).await,
            },
            Some(Fault::Corrupt) => {
                let bad = state.options.faults.corrupt(*number, data);
                send(&mut socket, state, bad.into()).await
            }
            Some(Fault::Truncate) => send(&mut socket, state, data.slice(..data.len() / 2)).await,
            Some(Fault::Stall) => {
                leave(path, index, order[i] + 1, state);
                // Whoever serves is gone for good; the client must notice.
                tokio::time::sleep(Duration::from_secs(86_400)).await;
                return;
            }
            Some(Fault::Cut) => {
                leave(path, index, order[i] + 1, state);
                return cut(socket, data).await;
            }
        };
        if !sent {
            return leave(path, index, order[i], state);
        }
        i += 1;
    }
    lock(&state.served).ended += 1;
    // Open and silent, but alive: pings are answered.
    while let Some(Ok(message)) = socket.next().await {
        hear(&message, state);
    }
}

/// Which opening a new client gets, and from which message.
fn next(path: &str, state: &State) -> Option<(usize, usize, Opening)> {
    let mut routes = lock(&state.routes);
    let route = routes.get_mut(path)?;
    let (index, first) = match route.left.pop() {
        Some(left) => left,
        None if route.begun < route.openings.len() => {
            route.begun += 1;
            (route.begun - 1, 0)
        }
        // More clients than were captured: they share the last one from its beginning.
        None => (route.openings.len().checked_sub(1)?, 0),
    };
    Some((index, first, route.openings.get(index)?.clone()))
}

fn leave(path: &str, index: usize, message: usize, state: &State) {
    if let Some(route) = lock(&state.routes).get_mut(path) {
        route.left.push((index, message));
    }
}

fn hear(message: &Message, state: &State) {
    if let Message::Text(text) = message {
        lock(&state.served).heard.push(text.to_string());
    }
}

/// Waits for the client's first text.
async fn spoke(socket: &mut Socket, state: &State) -> bool {
    while let Some(Ok(message)) = socket.next().await {
        hear(&message, state);
        if matches!(message, Message::Text(_)) {
            return true;
        }
    }
    false
}

/// Waits until a message is due, hearing the client meanwhile; false where it is gone.
async fn pace(socket: &mut Socket, state: &State, begun: &Stopwatch, after_ns: i64) -> bool {
    let Some(speed) = state.options.speed else { return true };
    let due = Duration::from_nanos((after_ns.max(0) as f64 / speed) as u64);
    loop {
        let wait = due.saturating_sub(begun.elapsed());
        if wait.is_zero() {
            return true;
        }
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(message)) => hear(&message, state),
                _ => return false,
            },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn send(socket: &mut Socket, state: &State, data: Bytes) -> bool {
    let message = match Utf8Bytes::try_from(data.clone()) {
        Ok(text) => Message::Text(text),
        Err(_) => Message::Binary(data),
    };
    let sent = socket.send(message).await.is_ok();
    lock(&state.served).messages += u64::from(sent);
    sent
}

/// Sends the first half of a message's frame, then cuts the connection.
async fn cut(mut socket: Socket, data: &[u8]) {
    // RFC 6455, 5.2: a final text frame without mask; the length in 7, 7+16 or 7+64 bits.
    let mut frame = vec![0x81];
    match data.len() {
        len @ ..126 => frame.push(len as u8),
        len @ ..65_536 => {
            frame.push(126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(&data[..data.len() / 2]);
    let io = socket.get_mut();
    let _ = io.write_all(&frame).await;
    let _ = io.flush().await;
    let _ = io.shutdown().await;
}
