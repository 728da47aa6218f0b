//! The fuzzer's corpus, and all of its beginnings, as a plain test. `cargo fuzz run -s none hello` (in this crate) finds
//! more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "../fuzz/checks.rs"]
mod checks;

fn each(target: &str, check: fn(&[u8])) {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut found = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        (0..=bytes.len()).for_each(|end| check(&bytes[..end]));
        found += 1;
    }
    assert!(found >= 4, "the corpus of {target} is missing");
}

#[test]
fn hello() {
    each("hello", checks::hello);
}
