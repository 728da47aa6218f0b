//! A proxy of one's own in under sixty lines
