//! A small HTTP application that calls others, for demonstrations and tests: a page is made of several services, and
//! every way in which a stream can run or break has a path of its own.
//!
//! | path | answer |
//! |---|---|
//! | `/`, `/page` | JSON of this service and of everything it calls; HTML for browsers |
//! | `/upload` | count and SHA-256 of the request body |
//! | `/download?bytes=N` | N bytes of a pattern |
//! | `/break?bytes=N` | announces more than N bytes, sends N, cuts the connection |
//! | `/slow?ms=N` | the page of this service alone, after N milliseconds |
//! | `/ws` | WebSocket echo |
//! | `/bookshop.Chat/Echo` | gRPC bidirectional echo |
//! | any other | JSON with the path and the headers that arrived |
//!
//! It serves HTTP/1.1 and HTTP/2 (prior knowledge) on one port.

mod app;
mod args;
mod body;
mod call;
mod chat;
pub mod grpc;
mod html;
mod page;
mod server;
mod stream;
mod ws;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

pub use app::App;
pub use args::{Args, Call, InvalidCall};
pub use server::serve;

/// Runs the program until SIGTERM or Ctrl-C. The first argument is the program's name.
pub fn run<I>(args: I) -> ExitCode
where
    I: IntoIterator<Item = OsString>,
{
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Help goes to standard output and ends well, anything else does not.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match server::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
