//! The request record, access log, metrics and admin endpoints
