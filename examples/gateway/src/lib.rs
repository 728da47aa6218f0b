//! The `gateway` program.

use std::ffi::OsString;
use std::process::ExitCode;

use towpath_proxy::Program;

/// Runs the program with its command line (the program's name first), until it is told to stop.
pub fn run<I>(args: I) -> ExitCode
where
    I: IntoIterator<Item = OsString>,
{
    towpath_proxy::run(Program::Gateway, args)
}
