//! How frames lie in a capture's file.
//!
//! A file is a row of zstd frames ("blocks"), each complete in itself and with a checksum. Unpacked, the first
//! block is the magic `TMFRAMES`, a version byte and the header as JSON; every other block is a row of records:
//! length of the rest (u32), time (i64, nanoseconds), connection (u32), kind (u8), and for an answer its
//! HTTP status (u16) and URL (u32 and text), then the bytes of the frame. Numbers are little-endian. No record straddles
//! two blocks.
//!
//! A block of a live feed grows for a second. Whenever rows are about to leave the source, what there is of it is
//! flushed, behind a mark (kind 5): the CRC32 of the records since the mark before. A file whose writer was
//! killed, or whose machine lost power, reads up to its last whole mark; half a record is never taken for one. Files of
//! version 1 have no marks: they read up to their last whole block.

use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::venue::frame::{Frame, FrameKind};

const MAGIC: &[u8; 8] = b"TMFRAMES";
const VERSION: u8 = 2;
/// The oldest version that is read.
const VERSION_MIN: u8 = 1;
/// What a block may unpack to.
const BLOCK_MAX: u64 = 256 << 20;
/// The kind of a mark.
const MARK: u8 = 5;

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
    /// The run of the job (see [`SourceContext::run`](tidemill_engine::source::SourceContext::run)).
    #[serde(default)]
    pub run: u64,
    /// The start that wrote it, larger than those before it in the run.
    #[serde(default)]
    pub generation: u64,
    /// Frames of the session before this file. What an earlier file of the session has beyond is no part of it:
    /// a process that was believed dead wrote it.
    #[serde(default)]
    pub first: Option<u64>,
    /// The session that this one goes on from.
    #[serde(default)]
    pub after: Option<Cut>,
    /// Hosts and paths that the feed connects to; older versions do not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Connections that are open as the session begins.
    #[serde(default)]
    pub open: Vec<u32>,
}

/// A place in a capture: behind so many frames of a session.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Cut {
    /// The session, by its start.
    pub session_ns: i64,
    /// Frames of it, from its first.
    pub frames: u64,
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
            Some((&(VERSION_MIN..=VERSION), json)) => {
                serde_json::from_slice(json).map_err(|e| format!("its header is damaged: {e}"))
            }
            Some((version, _)) => Err(format!(
                "it is of version {version}; this program reads versions {VERSION_MIN} to {VERSION}"
            )),
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

/// A block that grows while its frames come.
pub struct LiveBlock {
    encoder: zstd::Encoder<'static, Vec<u8>>,
    plain: usize,
}

impl LiveBlock {
    /// An empty one.
    pub fn new() -> std::io::Result<Self> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3)?;
        encoder.include_checksum(true)?;
        Ok(Self { encoder, plain: 0 })
    }

    /// Bytes of records in it.
    pub fn plain_bytes(&self) -> usize {
        self.plain
    }

    /// Adds records (see [`encode`]) and a mark; gives the bytes with which a file reads up to here.
    pub fn push(&mut self, records: &[u8]) -> std::io::Result<Vec<u8>> {
        use std::io::Write;
        let mut mark = Vec::with_capacity(21);
        mark.put_u32_le(17);
        mark.put_i64_le(0);
        mark.put_u32_le(0);
        mark.put_u8(MARK);
        mark.put_u32_le(crc32fast::hash(records));
        self.encoder.write_all(records)?;
        self.encoder.write_all(&mark)?;
        self.encoder.flush()?;
        self.plain += records.len() + mark.len();
        Ok(std::mem::take(self.encoder.get_mut()))
    }

    /// Ends it; gives the bytes that are left.
    pub fn finish(self) -> std::io::Result<Vec<u8>> {
        self.encoder.finish()
    }
}

/// The frames of unpacked records, and where the last mark ended, in bytes; an error where a record makes no sense.
fn records(mut plain: Bytes) -> (Vec<(Frame, usize)>, usize, Result<(), String>) {
    let whole = plain.clone();
    let mut frames = Vec::new();
    let (mut marked, mut sound) = (0, true);
    let nonsense = || Err("a record of it makes no sense".to_owned());
    while !plain.is_empty() {
        let at = whole.len() - plain.len();
        let Some(len) = plain.try_get_u32_le().ok().map(|len| len as usize).filter(|len| *len <= plain.len())
        else {
            return (frames, marked, nonsense());
        };
        let record = plain.split_to(len);
        if record.get(12) == Some(&MARK) {
            let crc = record.get(13..).and_then(|crc| crc.try_into().ok()).map(u32::from_le_bytes);
            sound &= crc == Some(crc32fast::hash(&whole[marked..at]));
            if !sound {
                return (frames, marked, nonsense());
            }
            marked = whole.len() - plain.len();
            continue;
        }
        match decode(record) {
            Some(frame) => frames.push((frame, whole.len() - plain.len())),
            None => return (frames, marked, nonsense()),
        }
    }
    (frames, marked, Ok(()))
}

/// Reads a file's bytes, block by block.
pub struct FileReader {
    bytes: Bytes,
    /// Why nothing more can be read.
    torn: Option<String>,
    /// What the file says of itself.
    pub header: Header,
}

impl FileReader {
    /// Reads the header.
    pub fn new(bytes: Bytes) -> Result<Self, String> {
        let mut reader = Self { bytes, torn: None, header: Header::default() };
        let plain = match reader.block() {
            Block::Whole(plain) => plain,
            Block::End => return Err("it is empty".into()),
            Block::Torn(_, reason) => return Err(reason),
        };
        reader.header = Header::read(&plain)?;
        Ok(reader)
    }

    /// The next block unpacked, as far as it can be.
    fn block(&mut self) -> Block {
        if self.bytes.is_empty() {
            return Block::End;
        }
        let left = self.bytes.len();
        let size = zstd::zstd_safe::find_frame_compressed_size(&self.bytes);
        let packed = self.bytes.split_to(size.unwrap_or(left).min(left));
        let mut plain = Vec::new();
        let unpacked = zstd::Decoder::new(packed.as_ref())
            .and_then(|decoder| unpack(std::io::Read::take(decoder, BLOCK_MAX), &mut plain));
        let reason = match (size, unpacked) {
            (Ok(_), Ok(())) => return Block::Whole(plain.into()),
            (Err(_), _) => format!("it is torn, {left} bytes before its end"),
            (_, Err(e)) => format!("it is damaged ({e}), {left} bytes before its end"),
        };
        // Again, byte by byte: a damaged part takes along what was unpacked in the same step.
        plain.clear();
        if let Ok(decoder) = zstd::Decoder::with_buffer(OneByOne(&packed)) {
            let _ = unpack(std::io::Read::take(decoder, BLOCK_MAX), &mut plain);
        }
        Block::Torn(plain.into(), reason)
    }

    /// The frames of the next block; `None` at the end, an error where the file is torn or damaged, after which
    /// nothing more can be read. Of a torn block there come those before its last whole mark.
    pub fn frames(&mut self) -> Result<Option<Vec<Frame>>, String> {
        if let Some(reason) = self.torn.take() {
            return Err(reason);
        }
        let (plain, torn) = match self.block() {
            Block::End => return Ok(None),
            Block::Whole(plain) => (plain, None),
            Block::Torn(plain, reason) => (plain, Some(reason)),
        };
        let (mut frames, marked, sound) = records(plain);
        let torn = torn.or(sound.err());
        if let Some(reason) = torn {
            self.bytes.clear();
            frames.retain(|(_, end)| *end <= marked);
            if frames.is_empty() {
                return Err(reason);
            }
            self.torn = Some(reason);
        }
        Ok(Some(frames.into_iter().map(|(frame, _)| frame).collect()))
    }
}

enum Block {
    Whole(Bytes),
    /// What there is of it, and what is wrong.
    Torn(Bytes, String),
    End,
}

/// Bytes that come one at a time.
struct OneByOne<'a>(&'a [u8]);

impl std::io::Read for OneByOne<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = into.len().min(1);
        std::io::Read::read(&mut self.0, &mut into[..n])
    }
}

impl std::io::BufRead for OneByOne<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        Ok(&self.0[..self.0.len().min(1)])
    }

    fn consume(&mut self, n: usize) {
        self.0 = &self.0[n.min(self.0.len())..];
    }
}

/// Reads all there is, also where it ends in an error.
fn unpack(mut from: impl std::io::Read, into: &mut Vec<u8>) -> std::io::Result<()> {
    let mut part = vec![0; 128 << 10];
    loop {
        match from.read(&mut part)? {
            0 => return Ok(()),
            n => into.extend_from_slice(&part[..n]),
        }
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
    fn a_block_that_was_growing_reads_up_to_its_last_whole_mark() {
        let header = Header { node: "trades".into(), first: Some(7), ..Header::default() };
        let mut file = header.block().unwrap();
        let mut block = LiveBlock::new().unwrap();
        // Frames are flushed in twos.
        let mut ends = vec![(file.len(), 0)];
        for (i, pair) in frames().chunks(2).enumerate() {
            let mut records = Vec::new();
            pair.iter().for_each(|frame| encode(frame, &mut records));
            file.extend(block.push(&records).unwrap());
            ends.push((file.len(), frames().len().min(2 * i + 2)));
        }
        let flushed = file.len();
        file.extend(block.finish().unwrap());
        let read = |bytes: &[u8]| {
            let mut reader = FileReader::new(Bytes::copy_from_slice(bytes)).unwrap();
            assert_eq!(reader.header, header);
            let mut got = Vec::new();
            loop {
                match reader.frames() {
                    Ok(Some(more)) => got.extend(more),
                    Ok(None) => return (got, false),
                    Err(_) => {
                        assert!(matches!(reader.frames(), Ok(None)), "nothing behind a tear");
                        return (got, true);
                    }
                }
            }
        };
        for cut in ends[0].0..file.len() {
            let (got, torn) = read(&file[..cut]);
            let whole = ends.iter().rev().find(|(end, _)| *end <= cut).unwrap().1;
            assert_eq!(got, frames()[..whole], "cut at {cut} of {flushed}");
            assert_eq!(torn, cut != ends[0].0, "cut at {cut}");
        }
        assert_eq!(read(&file), (frames(), false));
        // A power cut may leave anything in the place of what was not synced.
        for at in ends[0].0..file.len() {
            for (bytes, flip) in [(flushed, 0x55), (flushed, 0xff), (file.len(), 0x55)] {
                let mut bad = file[..bytes].to_vec();
                if let Some(byte) = bad.get_mut(at) {
                    *byte ^= flip;
                }
                let (got, _) = read(&bad);
                assert_eq!(got, frames()[..got.len()], "byte {at}");
                let before = ends.iter().rev().find(|(end, _)| *end <= at).unwrap().1;
                assert!(got.len() >= before, "byte {at}: {} of {before}", got.len());
            }
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
            FileReader::new(pack(b"TMFRAMES\x03{}").unwrap().into()).err().unwrap().contains("version 3")
        );
    }
}
