//! The sidecar program
