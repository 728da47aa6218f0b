//! The gateway program
