//! The `sidecar` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    towpath_sidecar::run(std::env::args_os())
}
