//! A link that carries timely's messages to another process.
//!
//! Timely's network threads panic when a socket fails. Here a failed socket is reported to the control plane, which ends
//! the run with the cause, and the thread then waits for the end of the process: it sees neither the error nor an early
//! end of the stream.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use timely::communication::allocator::zero_copy::stream::Stream;
use tokio::sync::mpsc::UnboundedSender;

use super::control_plane::Event;

/// The header with which timely ends a stream in order: six zero numbers of eight bytes.
const END: usize = 48;

/// A link to one other process.
pub struct Link {
    stream: TcpStream,
    peer: usize,
    events: UnboundedSender<(usize, Event)>,
    /// Zero bytes at the end of what was read: `END` of them and the stream is over in order.
    zeros: usize,
}

impl Link {
    /// A link over an authenticated connection to `peer`.
    pub fn new(stream: TcpStream, peer: usize, events: UnboundedSender<(usize, Event)>) -> Self {
        Self { stream, peer, events, zeros: 0 }
    }

    fn lost(&self, reason: String) {
        // Where the control plane has ended, so has the run.
        let _ = self.events.send((self.peer, Event::Gone(reason)));
    }
}

fn park() -> ! {
    loop {
        std::thread::park();
    }
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) if self.zeros >= END => return Ok(0),
                Ok(0) => {
                    self.lost("the connection was closed".into());
                    park();
                }
                Ok(n) => {
                    let zeros = buffer[..n].iter().rev().take(END).take_while(|b| **b == 0).count();
                    self.zeros = if zeros == n { (self.zeros + n).min(END) } else { zeros };
                    return Ok(n);
                }
                Err(e) => {
                    self.lost(format!("the connection broke: {e}"));
                    park();
                }
            }
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.write(bytes) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                self.lost(format!("the connection broke: {e}"));
                Ok(bytes.len())
            }
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Link {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, peer: self.peer, events: self.events.clone(), zeros: 0 })
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.stream.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        // The other side may have closed first.
        let _ = self.stream.shutdown(how);
        Ok(())
    }
}
