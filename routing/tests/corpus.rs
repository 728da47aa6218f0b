//! The fuzzer's corpus, and all of its beginnings, as a plain test. `cargo fuzz run -s none path` (in this crate) finds
//! more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "../fuzz/checks.rs"]
mod checks;
#[path = "../../gateway-core/fuzz/each.rs"]
mod each;

use each::each;

#[test]
fn path() {
    each("path", checks::path);
}
