//! The stream of trade updates: one connection, logged in and listening, until it is lost.
//!
//! <https://docs.alpaca.markets/docs/websocket-streaming>. The paper account's messages come in binary frames, the live one's in text;
//! both are JSON.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::Access;
use super::wire::{Message, TradeUpdate};
use crate::venue::live::fetch::chain;

/// Longest wait for a connection, and for each answer while it is set up.
const SET_UP_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection over which nothing came for half of this is pinged; for all of it: it is lost.
const STALE: Duration = Duration::from_secs(30);

/// Why there is no stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The connection is lost, or cannot be made: another may be.
    #[error("{0}")]
    Lost(String),
    /// The venue does not know who we are.
    #[error("{0}")]
    NotUs(String),
}

fn lost(reason: impl Into<String>) -> StreamError {
    StreamError::Lost(reason.into())
}

/// Something heard.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// Of an order.
    Update(Box<TradeUpdate>),
    /// A message that is not what the venue documents: its text and the reason.
    Odd(String, String),
}

/// A connection that listens.
pub struct Stream {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// When something must have come.
    due: Instant,
    pinged: bool,
}

impl Stream {
    /// Connects, logs in and listens. What happens from now on is heard.
    pub async fn open(access: &Access) -> Result<Self, StreamError> {
        let url = access.stream_url();
        let within =
            |what: &'static str| move |_| lost(format!("{what}: no answer within {SET_UP_TIMEOUT:?}"));
        let dialled = tokio::time::timeout(SET_UP_TIMEOUT, connect_async(url.as_str())).await;
        let (socket, _) = dialled.map_err(within("connecting"))?.map_err(|e| lost(chain(&e)))?;
        let mut stream = Self { socket, due: Instant::now() + STALE / 2, pinged: false };
        let login = json!({ "action": "auth", "key": access.key, "secret": access.secret });
        stream.say(login.to_string()).await?;
        let answer = stream.answer("authorization");
        let data = tokio::time::timeout(SET_UP_TIMEOUT, answer).await.map_err(within("logging in"))??;
        if data["status"] != "authorized" {
            return Err(StreamError::NotUs(
                "alpaca's stream does not know this key: check `key` and `secret`; a paper account has its own".into(),
            ));
        }
        let listen = json!({ "action": "listen", "data": { "streams": ["trade_updates"] } });
        stream.say(listen.to_string()).await?;
        let answer = stream.answer("listening");
        let data = tokio::time::timeout(SET_UP_TIMEOUT, answer).await.map_err(within("listening"))??;
        let listens = data["streams"].as_array().is_some_and(|all| all.iter().any(|s| s == "trade_updates"));
        if listens { Ok(stream) } else { Err(lost("the venue does not let us listen to trade_updates")) }
    }

    async fn say(&mut self, text: String) -> Result<(), StreamError> {
        let said = tokio::time::timeout(SET_UP_TIMEOUT, self.socket.send(Frame::text(text))).await;
        said.map_err(|_| lost("the venue takes nothing"))?.map_err(|e| lost(chain(&e)))
    }

    /// The next message's text.
    async fn frame(&mut self) -> Result<String, StreamError> {
        loop {
            let came = tokio::time::timeout_at(self.due, self.socket.next()).await;
            if came.is_ok() {
                (self.due, self.pinged) = (Instant::now() + STALE / 2, false);
            }
            match came {
                Ok(Some(Ok(Frame::Text(text)))) => return Ok(text.as_str().to_owned()),
                Ok(Some(Ok(Frame::Binary(bytes)))) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                Ok(Some(Ok(Frame::Close(why)))) => {
                    let why = why.map(|c| format!(": {} {}", c.code, c.reason)).unwrap_or_default();
                    return Err(lost(format!("closed by the venue{}", why.trim_end())));
                }
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(e))) => return Err(lost(chain(&e))),
                Ok(None) => return Err(lost("the venue is gone")),
                Err(_) if self.pinged => return Err(lost(format!("nothing came for {STALE:?}"))),
                Err(_) => {
                    (self.due, self.pinged) = (Instant::now() + STALE / 2, true);
                    let ping = self.socket.send(Frame::Ping(Default::default())).await;
                    ping.map_err(|e| lost(chain(&e)))?;
                }
            }
        }
    }

    async fn answer(&mut self, name: &str) -> Result<serde_json::Value, StreamError> {
        loop {
            let text = self.frame().await?;
            match serde_json::from_str::<Message>(&text) {
                Ok(message) if message.stream == name => return Ok(message.data),
                _ => {}
            }
        }
    }

    /// What comes next; may be dropped and called again, nothing is lost by it.
    pub async fn next(&mut self) -> Result<Heard, StreamError> {
        loop {
            let text = self.frame().await?;
            let odd = |reason: String| Ok(Heard::Odd(text.clone(), reason));
            let message: Message = match serde_json::from_str(&text) {
                Ok(message) => message,
                Err(e) => return odd(format!("no message of the stream: {e}")),
            };
            match message.stream.as_str() {
                "trade_updates" => match serde_json::from_value(message.data) {
                    Ok(update) => return Ok(Heard::Update(update)),
                    Err(e) => return odd(format!("no trade update: {e}")),
                },
                "authorization" if message.data["status"] == "unauthorized" => {
                    return Err(StreamError::NotUs(
                        "alpaca has logged us out: check `key` and `secret`".into(),
                    ));
                }
                "authorization" | "listening" => {}
                other => return odd(format!("unknown stream `{other}`")),
            }
        }
    }
}
