//! The ingress program
