//! What tests of this crate share: the reference answers, and numbers that other programs can draw too.

use std::path::PathBuf;

/// The text of a file of reference answers, or none where the data folder is absent (in CI it must be there).
pub(crate) fn reference(file: &str) -> Option<String> {
    let folder = std::env::var_os("TIDEMILL_DATA").map_or_else(|| "../../shared/data".into(), PathBuf::from);
    let path = folder.join("oracles").join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "{} is absent and CI=true", path.display());
        eprintln!("SKIPPED: the reference answers are absent: no {}", path.display());
        return None;
    };
    Some(text)
}

/// Numbers from -0.5 to 0.5 that Python draws alike: s = (1103515245 s + 12345) mod 2^31, each s / 2^31 - 0.5.
pub(crate) fn draw(seed: u64, n: usize) -> Vec<f64> {
    let mut s = seed;
    let next = || {
        s = (s * 1_103_515_245 + 12_345) % (1 << 31);
        s as f64 / f64::from(1_u32 << 31) - 0.5
    };
    std::iter::repeat_with(next).take(n).collect()
}
