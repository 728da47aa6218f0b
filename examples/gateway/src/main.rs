//! The `gateway` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    towpath_gateway::run(std::env::args_os())
}
