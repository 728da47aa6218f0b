//! The `ingress` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    towpath_ingress::run(std::env::args_os())
}
