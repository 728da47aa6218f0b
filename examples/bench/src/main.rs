//! The `bench` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    towpath_bench::run(std::env::args_os())
}
