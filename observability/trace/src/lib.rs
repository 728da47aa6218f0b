//! W3C trace context and spans as layers
