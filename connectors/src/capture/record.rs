//! How frames lie in a capture's file.
//!
//! A file is a row of zstd frames ("blocks"), each complete in itself and with a checksum, so a file whose
//! writer was killed reads up to its last whole block. Unpacked, the first block is the magic
//! `TMFRAMES`, a version byte and the header as JSON; every other block is a row of records:
//! length of the rest (u32), time (i64, nanoseconds), connection (u32), kind (u8), and for an answer its
//! HTTP status (u16) and URL (u32 and text), then the bytes of the frame. Numbers are little-endian. No record straddles
//! two blocks.

use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::venue::frame::{Frame, FrameKind};

const MAGIC: &[u8; 8] = b"TMFRAMES";
const VERSION: u8 = 1;
/// What a block may unpack to.
const BLOCK_MAX: u64 = 256 << 20;

/// What a file says of itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Header {
    /// The job that wrote it.
    pub job: String,
    /// The source that wrote it.
    pub node: String,
    /// When the run that wrote it began, nanoseconds.
    pub session_ns: i64,
    /// Its number in that run, from 0.
    pub number: u64,
    /// Whether that run went on from a checkpoint.
    #[serde(default)]
    pub restored: bool,
    /// Rows and refused input of the source before that run.
    #[serde(default)]
    pub rows: u64,
    /// What its protocol went on from.
    #[serde(default)]
    pub state: Value,
}

impl Header {
    /// As the first block of a file.
    pub fn block(&self) -> std::io::Result<Vec<u8>> {
        let mut plain = MAGIC.to_vec();
        plain.push(VERSION);
        serde_json::to_writer(&mut plain, self)?;
        pack(&plain)
    }

    fn read(plain: &[u8]) -> Result<Self, String> {
        let rest = plain.strip_prefix(MAGIC).ok_or("it is no file of a capture")?;
        match rest.split_first() {
            Some((&VERSION, json)) => {
                serde_json::from_slice(json).map_err(|e| format!("its header is damaged: {e}"))
            }
            Some((version, _)) => {
                Err(format!("it is of version {version}; this program reads version {VERSION}"))
            }
            None => Err("its header is cut off".into()),
        }
    }
}

/// Adds a frame to a block.
pub fn encode(frame: &Frame, block: &mut Vec<u8>) {
    let at = block.len();
    block.put_u32_le(0);
    block.put_i64_le(frame.received_ns);
    block.put_u32_le(frame.connection);
    block.put_u8(match &frame.kind {
        FrameKind::Opened => 0,
        FrameKind::Closed => 1,
        FrameKind::Received => 2,
        FrameKind::Sent => 3,
        FrameKind::Response { .. } => 4,
    });
    if let FrameKind::Response { url, status } = &frame.kind {
        block.put_u16_le(*status);
        block.put_u32_le(url.len() as u32);
        block.put_slice(url.as_bytes());
    }
    block.put_slice(&frame.data);
    let len = (block.len() - at - 4) as u32;
    block[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

fn decode(mut record: Bytes) -> Option<Frame> {
    let received_ns = record.try_get_i64_le().ok()?;
    let connection = record.try_get_u32_le().ok()?;
    let kind = match record.try_get_u8().ok()? {
        0 => FrameKind::Opened,
        1 => FrameKind::Closed,
        2 => FrameKind::Received,
        3 => FrameKind::Sent,
        4 => {
            let status = record.try_get_u16_le().ok()?;
            let len = record.try_get_u32_le().ok()? as usize;
            let url = (len <= record.len()).then(|| record.split_to(len))?;
            FrameKind::Response { url: String::from_utf8(url.to_vec()).ok()?, status }
        }
        _ => return None,
    };
    Some(Frame { received_ns, connection, kind, data: record })
}

/// Packs a block.
pub fn pack(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::with_capacity(plain.len() / 4), 3)?;
    encoder.include_checksum(true)?;
    std::io::Write::write_all(&mut encoder, plain)?;
    encoder.finish()
}

/// Reads a file's bytes, block by block.
pub struct FileReader {
    bytes: Bytes,
    /// What the file says of itself.
    pub header: Header,
}

impl FileReader {
    /// Reads the header.
    pub fn new(bytes: Bytes) -> Result<Self, String> {
        let mut reader = Self { bytes, header: Header::default() };
        let plain = reader.block()?.ok_or("it is empty")?;
        reader.header = Header::read(&plain)?;
        Ok(reader)
    }

    /// The next block unpacked; an error where the file is torn or damaged, after which nothing more can be read.
    fn block(&mut self) -> Result<Option<Bytes>, String> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let left = self.bytes.len();
        let torn = |why: String| format!("{why}, {left} bytes before its end");
        let size = zstd::zstd_safe::find_frame_compressed_size(&self.bytes)
            .map_err(|_| torn("it is torn".into()))?;
        let packed = self.bytes.split_to(size.min(left));
        let mut plain = Vec::new();
        let decoder =
            zstd::Decoder::new(packed.as_ref()).map_err(|e| torn(format!("it is damaged ({e})")))?;
        std::io::Read::read_to_end(&mut std::io::Read::take(decoder, BLOCK_MAX), &mut plain)
            .map_err(|e| torn(format!("it is damaged ({e})")))?;
        Ok(Some(plain.into()))
    }

    /// The frames of the next block; `None` at the end, an error where the file is torn.
    pub fn frames(&mut self) -> Result<Option<Vec<Frame>>, String> {
        let Some(mut plain) = self.block().inspect_err(|_| self.bytes.clear())? else { return Ok(None) };
        let mut frames = Vec::new();
        while !plain.is_empty() {
            let len = plain.try_get_u32_le().map_or(usize::MAX, |len| len as usize);
            let frame = (len <= plain.len()).then(|| plain.split_to(len)).and_then(decode);
            match frame {
                Some(frame) => frames.push(frame),
                None => return Err("a record of it makes no sense".into()),
            }
        }
        Ok(Some(frames))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let frame = |received_ns, connection, kind, data: &'static [u8]| Frame {
            received_ns,
            connection,
            kind,
            data: Bytes::from_static(data),
        };
        vec![
            frame(-5, 0, FrameKind::Opened, b"wss://x"),
            frame(7, 1, FrameKind::Sent, b"{}"),
            frame(i64::MAX, u32::MAX, FrameKind::Received, b"\x00\xff"),
            frame(8, 1, FrameKind::Response { url: "https://x/y?z=1".into(), status: 429 }, b"slow down"),
            frame(9, 1, FrameKind::Closed, b""),
        ]
    }

    #[test]
    fn what_is_written_is_read_back_and_a_tear_at_any_byte_loses_only_the_blocks_behind_it() {
        let header =
            Header { node: "trades".into(), state: serde_json::json!({"A": 1}), ..Header::default() };
        let mut file = header.block().unwrap();
        let mut ends = vec![(file.len(), 0)];
        for (i, frame) in frames().iter().enumerate() {
            let mut block = Vec::new();
            encode(frame, &mut block);
            file.extend(pack(&block).unwrap());
            ends.push((file.len(), i + 1));
        }
        for cut in ends[0].0..=file.len() {
            let mut reader = FileReader::new(Bytes::copy_from_slice(&file[..cut])).unwrap();
            assert_eq!(reader.header, header);
            let mut got = Vec::new();
            let torn = loop {
                match reader.frames() {
                    Ok(Some(more)) => got.extend(more),
                    Ok(None) => break false,
                    Err(_) => break true,
                }
            };
            let (end, whole) = *ends.iter().rev().find(|(end, _)| *end <= cut).unwrap();
            assert_eq!(got, frames()[..whole], "cut at {cut}");
            assert_eq!(torn, cut != end, "cut at {cut}");
        }
    }

    #[test]
    fn no_damage_panics_and_none_within_a_block_goes_unseen() {
        let mut file = Header::default().block().unwrap();
        let start = file.len();
        let mut block = Vec::new();
        frames().iter().for_each(|frame| encode(frame, &mut block));
        file.extend(pack(&block).unwrap());
        let mut seen = 0;
        for at in start..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 0x55;
            let read = FileReader::new(bad.into()).unwrap().frames();
            // A bit that means nothing may be flipped (zstd has some); frames that differ may not come.
            match read {
                Ok(Some(got)) => assert_eq!(got, frames(), "byte {at}"),
                Ok(None) => panic!("byte {at}: nothing read"),
                Err(_) => seen += 1,
            }
        }
        assert!(seen > (file.len() - start) * 9 / 10, "{seen}");
        assert!(FileReader::new(Bytes::from_static(b"hello")).is_err());
        assert!(
            FileReader::new(pack(b"TMFRAMES\x02{}").unwrap().into()).err().unwrap().contains("version 2")
        );
    }
}
