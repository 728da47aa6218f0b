//! All four deployments as real processes from one command
