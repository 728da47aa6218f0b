//! `migrate`: routes of the Gateway API in place of Istio's `VirtualService`s.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::json;
use towpath_config::{Loss, Migration, Source, migrate as made_of};

use crate::Failure;
use crate::args::{MigrateArgs, MigrateOutput};
use crate::check::print;

/// Prints the new objects on standard output and what was not carried over on standard error.
pub(crate) fn migrate(args: &MigrateArgs) -> Result<ExitCode, Failure> {
    let migration = made_of(&Source::read(&args.config)?);
    match args.output {
        MigrateOutput::Yaml => {
            print(&migration.to_yaml());
            // Readers of a pipe may be gone; the exit code tells.
            let _ = report(&migration);
        }
        MigrateOutput::Json => {
            let problems: Vec<_> = migration.problems.iter().map(ToString::to_string).collect();
            let whole = json!({
                "objects": migration.objects,
                "findings": migration.findings,
                "problems": problems,
            });
            print(&format_args!("{whole:#}\n"));
        }
    }
    let failed = !migration.problems.is_empty() || (args.strict && migration.has_losses());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn report(migration: &Migration) -> io::Result<()> {
    let mut out = io::stderr().lock();
    for problem in &migration.problems {
        writeln!(out, "{problem}")?;
    }
    for finding in &migration.findings {
        writeln!(out, "{finding}")?;
    }
    let count = |loss| migration.findings.iter().filter(|finding| finding.loss == loss).count();
    let objects = migration.objects.len();
    let (lost, changed, notes) = (count(Loss::Lost), count(Loss::Changed), count(Loss::Note));
    writeln!(out, "{objects} objects; fields lost: {lost}, changed: {changed}, notes: {notes}")
}
