//! The program of [`towpath_service`].

use std::process::ExitCode;

fn main() -> ExitCode {
    towpath_service::run(std::env::args_os())
}
