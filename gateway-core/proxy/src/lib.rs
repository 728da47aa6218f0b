//! The life of a proxy process: command line, configuration, identity, workers, listeners, drain
