//! The `control-plane` program; see the library for what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    towpath_control_plane::run(std::env::args_os())
}
