//! The `scenario` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    towpath_scenario::run(std::env::args_os())
}
