//! One connection of a feed, kept up: connect, say hello, read, answer pings, notice silence, come back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tidemill_engine::clock::Clock;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::Arrived;
use super::backoff::Backoff;
use super::fetch::{chain, skew_ms};
use crate::venue::feed::FeedParams;
use crate::venue::frame::{Frame, FrameKind};
use crate::venue::protocol::{Endpoint, Outgoing};
use crate::venue::shown;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a connection is told; with the number of the opening it is meant for.
pub(crate) enum Command {
    Send(Outgoing),
    Reconnect(String),
}

/// What all connections of a feed share.
pub(crate) struct Shared {
    pub node: String,
    pub params: FeedParams,
    pub clock: Clock,
    pub frames: mpsc::Sender<Arrived>,
}

pub(crate) struct Connection {
    index: u32,
    endpoint: Endpoint,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedReceiver<(u64, Command)>,
    /// How often it was opened.
    opened: u64,
    /// Keeps the venue's distance between messages, over reconnects too.
    gap: Option<DefaultDirectRateLimiter>,
}

/// Nobody listens to frames any more.
struct Unheard;

impl Connection {
    pub fn new(
        index: u32,
        endpoint: Endpoint,
        shared: Arc<Shared>,
        commands: mpsc::UnboundedReceiver<(u64, Command)>,
    ) -> Self {
        let gap = Quota::with_period(Duration::from_nanos(endpoint.send_gap_ns.max(0) as u64));
        Self { index, endpoint, shared, commands, opened: 0, gap: gap.map(RateLimiter::direct) }
    }

    /// Keeps the connection up until nobody listens.
    pub async fn run(mut self) {
        let params = &self.shared.params;
        let seed = self.shared.clock.now_ns() as u64 ^ (u64::from(self.index) << 48);
        let mut backoff = Backoff::new(params.backoff_min.std(), params.backoff_max.std(), seed);
        let url = shown::url(&self.endpoint.url);
        let node = self.shared.node.clone();
        loop {
            match self.dial().await {
                Ok(socket) => {
                    let lasted = self.shared.clock.start();
                    tracing::info!(source = node, connection = self.index, url, "connected");
                    let Ok(reason) = self.talk(socket, &url).await else { return };
                    tracing::warn!(source = node, connection = self.index, url, "connection lost: {reason}");
                    if self.frame(FrameKind::Closed, reason.into()).await.is_err() {
                        return;
                    }
                    self.count("connections_lost").await;
                    backoff.lasted(lasted.elapsed());
                }
                Err(reason) => {
                    tracing::warn!(source = node, connection = self.index, url, "cannot connect: {reason}");
                    self.count("connect_errors").await;
                }
            }
            let wait = backoff.next();
            tracing::debug!(source = node, connection = self.index, ?wait, "before the next try to connect");
            tokio::time::sleep(wait).await;
            if self.shared.frames.is_closed() {
                return;
            }
        }
    }

    async fn dial(&self) -> Result<Socket, String> {
        let within = self.shared.params.timeout;
        let dialled = tokio::time::timeout(within.std(), connect_async(self.endpoint.url.as_str())).await;
        match dialled {
            Ok(Ok((socket, response))) => {
                let date = response.headers().get("date").and_then(|v| v.to_str().ok());
                if let Some(ms) = date.and_then(|date| skew_ms(date, self.shared.clock.now_ns())) {
                    let _ = self.shared.frames.send(Arrived::Skew(ms)).await;
                }
                Ok(socket)
            }
            Ok(Err(WsError::Http(response))) => {
                let body = response.body().as_deref().unwrap_or_default();
                let body: String = String::from_utf8_lossy(body).chars().take(200).collect();
                Err(format!("the venue answers {} {body}", response.status()).trim_end().to_owned())
            }
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("no answer within {within}")),
        }
    }

    async fn frame(&self, kind: FrameKind, data: Bytes) -> Result<(), Unheard> {
        let frame = Frame { received_ns: self.shared.clock.now_ns(), connection: self.index, kind, data };
        self.shared.frames.send(Arrived::Frame(frame)).await.map_err(|_| Unheard)
    }

    async fn count(&self, name: &'static str) {
        let _ = self.shared.frames.send(Arrived::Count(name, 1)).await;
    }

    /// Talks until the connection is lost or cut; gives the reason.
    async fn talk(&mut self, mut socket: Socket, url: &str) -> Result<String, Unheard> {
        self.opened += 1;
        self.frame(FrameKind::Opened, Bytes::copy_from_slice(url.as_bytes())).await?;
        let stale = Duration::from_nanos(self.endpoint.stale_ns.max(1) as u64);
        let mut outbox: VecDeque<Outgoing> = self.endpoint.hello.clone().into();
        let mut quiet = self.shared.clock.start();
        let mut pinged = false;
        loop {
            let limit = if pinged { stale } else { stale / 2 };
            let silence = tokio::time::sleep(limit.saturating_sub(quiet.elapsed()));
            let may_send = async {
                if let Some(gap) = &self.gap {
                    gap.until_ready().await;
                }
            };
            tokio::select! {
                message = socket.next() => {
                    let data = match message {
                        Some(Ok(Message::Text(text))) => Some(Bytes::from(text)),
                        Some(Ok(Message::Binary(data))) => Some(data),
                        Some(Ok(Message::Close(why))) => {
                            let why = why.map(|c| format!(": {} {}", c.code, c.reason)).unwrap_or_default();
                            return Ok(format!("closed by the venue{}", why.trim_end()));
                        }
                        Some(Ok(_)) => None,
                        Some(Err(error)) => return Ok(chain(&error)),
                        None => return Ok("the venue is gone".into()),
                    };
                    if let Some(data) = data {
                        // Waits while the queue is full: the socket is not read meanwhile.
                        self.frame(FrameKind::Received, data).await?;
                    }
                    quiet = self.shared.clock.start();
                    pinged = false;
                }
                () = may_send, if !outbox.is_empty() => {
                    let Some(message) = outbox.pop_front() else { continue };
                    if let Err(reason) = self.send(&mut socket, Message::text(message.text)).await {
                        return Ok(reason);
                    }
                    self.frame(FrameKind::Sent, message.shown.into()).await?;
                }
                command = self.commands.recv() => match command {
                    None => return Err(Unheard),
                    // What was meant for an earlier opening has no meaning for this one.
                    Some((opened, _)) if opened != self.opened => {}
                    Some((_, Command::Send(message))) => outbox.push_back(message),
                    Some((_, Command::Reconnect(reason))) => {
                        let _ = self.send(&mut socket, Message::Close(None)).await;
                        return Ok(format!("cut: {reason}"));
                    }
                },
                () = silence => {
                    if pinged {
                        self.count("stale_connections").await;
                        return Ok(format!("stale: nothing came for {stale:?}"));
                    }
                    pinged = true;
                    let mut pings = vec![Message::Ping(Bytes::new())];
                    pings.extend(self.endpoint.ping.clone().map(Message::text));
                    for ping in pings {
                        if let Err(reason) = self.send(&mut socket, ping).await {
                            return Ok(reason);
                        }
                    }
                }
            }
        }
    }

    async fn send(&self, socket: &mut Socket, message: Message) -> Result<(), String> {
        match tokio::time::timeout(self.shared.params.timeout.std(), socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("nothing could be sent for {}", self.shared.params.timeout)),
        }
    }
}
