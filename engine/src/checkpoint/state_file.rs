//! One node's state on one worker: key groups and held rows, in one zstd-compressed file.

use serde::{Deserialize, Serialize};

/// Content of a state file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct NodeState {
    /// Key groups as the operator encoded them.
    pub groups: Vec<(u16, Vec<u8>)>,
    /// Held rows, by input port, as Arrow IPC streams.
    pub held: Vec<Vec<Vec<u8>>>,
}

/// What cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the state file is damaged: {0}")]
pub struct Damaged(String);

/// First bytes of a state file: magic and version.
const MAGIC: &[u8; 8] = b"TIDEMIL1";

impl NodeState {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.held.iter().all(Vec::is_empty)
    }

    /// The bytes of the file; they end with a checksum.
    pub fn encode(&self) -> Result<Vec<u8>, Damaged> {
        let broken = |e: String| Damaged(e);
        let plain = postcard::to_stdvec(self).map_err(|e| broken(e.to_string()))?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend(zstd::bulk::compress(&plain, 1).map_err(|e| broken(e.to_string()))?);
        bytes.extend_from_slice(&(plain.len() as u64).to_le_bytes());
        let sum = xxhash_rust::xxh3::xxh3_64(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        Ok(bytes)
    }

    /// Reads what `encode` wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let cut = || Damaged("it is cut short".into());
        let (body, sum) = bytes.split_last_chunk::<8>().ok_or_else(cut)?;
        if xxhash_rust::xxh3::xxh3_64(body) != u64::from_le_bytes(*sum) {
            return Err(Damaged("its checksum does not match".into()));
        }
        let body = body
            .strip_prefix(MAGIC)
            .ok_or_else(|| Damaged("it is not a state file of this version".into()))?;
        let (body, len) = body.split_last_chunk::<8>().ok_or_else(cut)?;
        let plain = zstd::bulk::decompress(body, u64::from_le_bytes(*len) as usize)
            .map_err(|e| Damaged(e.to_string()))?;
        postcard::from_bytes(&plain).map_err(|e| Damaged(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_back_and_any_changed_byte_is_noticed() {
        let state =
            NodeState { groups: vec![(3, vec![1, 2, 3]), (900, vec![])], held: vec![vec![vec![9; 100]]] };
        let bytes = state.encode().unwrap();
        let back = NodeState::decode(&bytes).unwrap();
        assert_eq!((back.groups, back.held), (state.groups, state.held));
        for i in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[i] ^= 1;
            assert!(NodeState::decode(&broken).is_err(), "byte {i}");
        }
        assert!(NodeState::decode(&bytes[..5]).is_err());
    }
}
