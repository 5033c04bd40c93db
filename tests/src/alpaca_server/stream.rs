//! The stream of trade updates: log-in, `listen`, updates in binary frames as the paper account sends them; and what goes wrong.

use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::{KEY, SECRET, Shared, lock};

/// Told to all, it cuts them.
pub(super) const CUT: &str = "\u{0}cut";

pub(super) async fn serve(mut socket: WebSocketStream<TokioIo<Upgraded>>, shared: Arc<Shared>) {
    let mut updates = shared.updates.subscribe();
    let (late, mut delayed) = mpsc::unbounded_channel::<String>();
    let (mut known, mut listens) = (false, false);
    loop {
        tokio::select! {
            message = socket.next() => {
                let Some(Ok(message)) = message else { return };
                let Ok(text) = message.to_text() else { continue };
                let Ok(said) = serde_json::from_str::<Value>(text) else { continue };
                let answer = match said["action"].as_str() {
                    Some("auth") => {
                        known = said["key"] == KEY && said["secret"] == SECRET;
                        let status = if known { "authorized" } else { "unauthorized" };
                        json!({ "stream": "authorization", "data": { "status": status, "action": "authenticate" } })
                    }
                    Some("listen") if known => {
                        listens = true;
                        json!({ "stream": "listening", "data": { "streams": said["data"]["streams"] } })
                    }
                    _ => continue,
                };
                if socket.send(Message::binary(answer.to_string())).await.is_err() {
                    return;
                }
            }
            update = updates.recv() => {
                let Ok(text) = update else { return };
                if text == CUT {
                    return;
                }
                if !listens {
                    continue;
                }
                let (times, delay, cut) = lock(&shared.faults).update();
                if cut {
                    return;
                }
                for _ in 0..times {
                    if delay > 0 {
                        let (late, text) = (late.clone(), text.clone());
                        tokio::spawn(async move {
                            tokio::time::sleep(Duration::from_millis(delay)).await;
                            let _ = late.send(text);
                        });
                    } else if socket.send(Message::binary(text.clone())).await.is_err() {
                        return;
                    }
                }
            }
            Some(text) = delayed.recv() => {
                if socket.send(Message::binary(text)).await.is_err() {
                    return;
                }
            }
        }
    }
}
