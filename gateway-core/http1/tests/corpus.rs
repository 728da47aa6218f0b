//! The fuzzer's corpus, and all of its beginnings, as a plain test. `cargo fuzz run -s none request` (in this crate) finds
//! more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "../fuzz/checks.rs"]
mod checks;
#[path = "../../fuzz/each.rs"]
mod each;

use each::each;

#[test]
fn request_heads() {
    each("request", checks::request);
}

#[test]
fn response_heads() {
    each("response", checks::response);
}

#[test]
fn chunked_bodies() {
    each("body", checks::body);
}
