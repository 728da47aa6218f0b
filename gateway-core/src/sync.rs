//! Atomics by one name, so that the interleaving tests (`--cfg towpath_loom`) run the very code that ships.

#[cfg(towpath_loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
#[cfg(not(towpath_loom))]
pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
