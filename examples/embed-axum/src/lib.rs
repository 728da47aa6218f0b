//! Towpath layers inside an axum application
