//! Issuers for tests, which speak gRPC on real sockets.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

pub mod agent;
pub mod grpc;
pub mod istiod;
