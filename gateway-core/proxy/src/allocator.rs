//! The allocator of every program of this crate.
//!
//! jemalloc, because a request asks it for memory some fifteen times, each of which costs half of what it costs with
//! glibc's, and because it gives the pages of a burst of connections back (`docs/performance.md` has the figures).

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;
