//! Recorded sessions as text into a capture.
//!
//! The format is that of cryptofeed's raw data collection: of a WebSocket `URL <-> time` where it was
//! opened, `URL <- time: text` what the client sent, `time: text` what it received; of REST requests
//! `URL -> time: body`. Times are seconds since the epoch with a fraction. Each WebSocket file is a
//! connection, numbered in the order given (REST answers count for the first); the files are merged by time.

use std::io::{BufRead, Read};
use std::path::Path;

use bytes::Bytes;
use tidemill_engine::clock::Clock;

use super::record::Header;
use super::writer::CaptureWriter;
use crate::venue::frame::{Frame, FrameKind};

/// Bytes a line may have.
const LINE_MAX: u64 = 256 << 20;

/// Reads recorded sessions (`.gz` files are unpacked), merged by time.
pub fn read(files: &[impl AsRef<Path>]) -> Result<Vec<Frame>, String> {
    let mut all: Vec<(i64, Frame)> = Vec::new();
    let mut connection = 0;
    for path in files {
        let path = path.as_ref();
        let file = std::fs::File::open(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let bytes: Box<dyn Read> = match path.extension().is_some_and(|e| e == "gz") {
            true => Box::new(flate2::read::MultiGzDecoder::new(file)),
            false => Box::new(file),
        };
        let mut frames = lines(std::io::BufReader::new(bytes), connection)
            .map_err(|reason| format!("{}: {reason}", path.display()))?;
        if frames.iter().any(|f| f.kind == FrameKind::Opened) {
            connection += 1;
        } else {
            // Answers do not say who asked.
            frames.iter_mut().for_each(|f| f.connection = 0);
        }
        // A file's own order is kept, even where its clock went back.
        let mut newest = i64::MIN;
        all.extend(frames.into_iter().map(|frame| {
            newest = newest.max(frame.received_ns);
            (newest, frame)
        }));
    }
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, frame)| frame).collect())
}

/// Reads one file's lines.
pub fn lines(mut text: impl BufRead, connection: u32) -> Result<Vec<Frame>, String> {
    let mut frames = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = text.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
        if read.map_err(|e| format!("cannot be read after line {}: {e}", number - 1))? == 0 {
            break;
        }
        let line = std::str::from_utf8(&line).map_err(|_| format!("line {number} is not UTF-8 text"))?;
        let line = line.trim_end_matches(['\n', '\r']);
        if !line.is_empty() {
            let frame = frame(line, connection).ok_or_else(|| {
                let shown: String = line.chars().take(60).collect();
                format!("line {number} is not `URL <-> time`, `URL <- time: text`, `URL -> time: text` or `time: text`: `{shown}`")
            })?;
            frames.push(frame);
        }
    }
    Ok(frames)
}

fn frame(line: &str, connection: u32) -> Option<Frame> {
    let of = |received_ns, kind, data: &str| Frame {
        received_ns,
        connection,
        kind,
        data: Bytes::copy_from_slice(data.as_bytes()),
    };
    if ["http", "ws"].iter().any(|scheme| line.starts_with(scheme)) {
        let (url, rest) = line.split_once(' ')?;
        let (arrow, rest) = rest.split_once(' ')?;
        if arrow == "<->" {
            return Some(of(nanoseconds(rest.trim())?, FrameKind::Opened, url));
        }
        let (time, text) = rest.split_once(": ").or_else(|| rest.split_once(':'))?;
        let at = nanoseconds(time)?;
        return match arrow {
            "<-" => Some(of(at, FrameKind::Sent, text)),
            "->" => Some(of(at, FrameKind::Response { url: url.to_owned(), status: 200 }, text)),
            _ => None,
        };
    }
    let (time, text) = line.split_once(": ").or_else(|| line.split_once(':'))?;
    Some(of(nanoseconds(time)?, FrameKind::Received, text))
}

/// Decimal seconds as nanoseconds, exactly.
fn nanoseconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction = format!("{:0<9}", fraction.get(..fraction.len().min(9))?);
    let seconds: i64 = whole.parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(fraction.parse().ok()?)
}

/// Writes frames as a capture at `url`; gives how many.
pub async fn write(frames: &[Frame], url: &str, base: &Path) -> Result<usize, String> {
    let session_ns = frames.first().map_or(0, |f| f.received_ns);
    // The recorded time: files are named and dated by it.
    let clock = Clock::Manual(std::sync::Arc::new(session_ns.into()));
    let header = Header { job: "import".into(), session_ns, ..Header::default() };
    let mut writer = CaptureWriter::start(url, base, header, clock).await?;
    for frame in frames {
        writer.write(frame).await?;
    }
    writer.finish().await?;
    Ok(frames.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_line_becomes_its_frame_with_its_time_to_the_nanosecond() {
        let text = "wss://x/y?a=b <-> 1633998511.159679\nwss://x <- 1633998512.5: {\"op\": \"sub: all\"}\n\
                    1633998512.0633569: {\"a\":1}\nhttps://x/z?q=1 -> 7: [1, 2]\n\n8.1234567891: : x\n";
        let frames = lines(text.as_bytes(), 3).unwrap();
        let got: Vec<(i64, FrameKind, &str)> = frames
            .iter()
            .map(|f| (f.received_ns, f.kind.clone(), std::str::from_utf8(&f.data).unwrap()))
            .collect();
        let response = FrameKind::Response { url: "https://x/z?q=1".into(), status: 200 };
        assert_eq!(
            got,
            [
                (1_633_998_511_159_679_000, FrameKind::Opened, "wss://x/y?a=b"),
                (1_633_998_512_500_000_000, FrameKind::Sent, "{\"op\": \"sub: all\"}"),
                (1_633_998_512_063_356_900, FrameKind::Received, "{\"a\":1}"),
                (7_000_000_000, response, "[1, 2]"),
                (8_123_456_789, FrameKind::Received, ": x"),
            ]
        );
        assert!(lines("{\"a\":1}\n".as_bytes(), 0).unwrap_err().starts_with("line 1 is not"));
    }
}
