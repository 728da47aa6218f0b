//! Listeners, the accept stack, HTTP/1 and HTTP/2 serving with limits, upgrades and drain
