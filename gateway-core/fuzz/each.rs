//! A fuzzer's corpus as a plain test: what `tests/corpus.rs` of every crate with targets runs.

/// Checks every file of a target's corpus in the crate that includes this, and all of its beginnings.
pub(crate) fn each(target: &str, check: fn(&[u8])) {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut found = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        (0..=bytes.len()).for_each(|end| check(&bytes[..end]));
        found += 1;
    }
    assert!(found >= 4, "the corpus of {target} is missing");
}
