//! From Istio's `VirtualService` to the Gateway API: the parts that a migration is made of. Nothing reads with them yet.
#![cfg_attr(not(test), expect(dead_code, reason = "the reader of VirtualServices is not written yet"))]
#![cfg_attr(test, allow(dead_code))]

mod condition;
mod cursor;
mod input;
mod order;
mod report;
mod strings;
mod tree;

#[cfg(test)]
mod tests;
