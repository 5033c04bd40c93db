//! The handshake of a connection: each side proves that it knows the job's secret.
//!
//! Messages have fixed lengths. The connecting side says who it is, whom it wants, which start it belongs to, and a nonce;
//! the accepting side answers with its nonce and an HMAC-SHA256 over all of that; the connecting side answers with its own;
//! one byte ends it. The label in each HMAC keeps one side's proof from being played back as the other's.

use std::io;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Secret;

const MAGIC: &[u8; 8] = b"tdmlink1";
const NONCE: usize = 32;
const PROOF: usize = 32;
/// Magic, kind, process, target, start, nonce.
const HELLO: usize = 8 + 1 + 4 + 4 + 8 + NONCE;
const ACCEPTED: u8 = 1;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Timely's messages.
    Data = 1,
    /// The control plane.
    Control = 2,
}

/// Who a process is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This process.
    pub process: usize,
    /// How many there are.
    pub processes: usize,
    /// The start all of them belong to.
    pub start: u64,
    /// What they know.
    pub secret: Secret,
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

impl Identity {
    fn mac(&self, label: &[u8], hello: &[u8], nonce: &[u8]) -> io::Result<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret.0).map_err(|e| refused(&e.to_string()))?;
        mac.update(label);
        mac.update(hello);
        mac.update(nonce);
        Ok(mac)
    }

    /// The connecting side.
    pub async fn connect(&self, stream: &mut TcpStream, target: usize, kind: Kind) -> io::Result<()> {
        let mut hello = Vec::with_capacity(HELLO);
        hello.extend_from_slice(MAGIC);
        hello.push(kind as u8);
        hello.extend_from_slice(&(self.process as u32).to_be_bytes());
        hello.extend_from_slice(&(target as u32).to_be_bytes());
        hello.extend_from_slice(&self.start.to_be_bytes());
        hello.extend_from_slice(&rand::random::<[u8; NONCE]>());
        stream.write_all(&hello).await?;
        let mut answer = [0; NONCE + PROOF];
        stream.read_exact(&mut answer).await?;
        let (nonce, proof) = answer.split_at(NONCE);
        self.mac(b"accept", &hello, nonce)?
            .verify_slice(proof)
            .map_err(|_| refused("the other side does not know the secret of the job"))?;
        let mine = self.mac(b"connect", &hello, nonce)?.finalize().into_bytes();
        stream.write_all(&mine).await?;
        match stream.read_u8().await? {
            ACCEPTED => Ok(()),
            _ => Err(refused("the other side did not accept the connection")),
        }
    }

    /// The accepting side; the process that has connected, and what for.
    pub async fn accept(&self, stream: &mut TcpStream) -> io::Result<(usize, Kind)> {
        let mut hello = [0; HELLO];
        stream.read_exact(&mut hello).await?;
        if &hello[..8] != MAGIC {
            return Err(refused("it does not speak this protocol"));
        }
        let number = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&hello[at..at + 4]);
            u32::from_be_bytes(bytes) as usize
        };
        let (process, target) = (number(9), number(13));
        let nonce: [u8; NONCE] = rand::random();
        let proof = self.mac(b"accept", &hello, &nonce)?.finalize().into_bytes();
        stream.write_all(&[nonce.as_slice(), &proof].concat()).await?;
        let mut theirs = [0; PROOF];
        stream.read_exact(&mut theirs).await?;
        self.mac(b"connect", &hello, &nonce)?
            .verify_slice(&theirs)
            .map_err(|_| refused("it does not know the secret of the job"))?;
        // It knows the secret: from here on mistakes are mistakes of configuration.
        let kind = match hello[8] {
            1 => Kind::Data,
            2 => Kind::Control,
            _ => return Err(refused("it asks for an unknown kind of connection")),
        };
        if hello[17..25] != self.start.to_be_bytes() {
            return Err(refused("it belongs to another start of the job"));
        }
        if target != self.process {
            return Err(refused(&format!("it looks for process {target}, this is process {}", self.process)));
        }
        if process <= self.process || process >= self.processes || (kind == Kind::Control && target != 0) {
            return Err(refused(&format!("process {process} of {} does not connect here", self.processes)));
        }
        stream.write_u8(ACCEPTED).await?;
        Ok((process, kind))
    }
}
