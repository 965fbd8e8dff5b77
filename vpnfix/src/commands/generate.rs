//! `completions`, `man` and `schema`: made from the same definitions that parse the command line and write the documents.

use clap::CommandFactory as _;
use schemars::schema_for;

use super::cli::{Cli, SchemaName};
use super::failure::Failure;
use super::output::Output;
use crate::core::bundle::contents::Changes;
use crate::core::bundle::manifest::Manifest;
use crate::core::bundle::timeline::Timeline;
use crate::core::report::Outcome;
use crate::core::report::check::CheckReport;
use crate::core::report::diagnose::DiagnoseReport;
use crate::core::report::doctor::DoctorReport;
use crate::core::report::explain::ExplainReport;
use crate::core::report::fix::{FixReport, UndoReport};
use crate::core::report::incident::IncidentReport;
use crate::core::report::persist::{PersistReport, UnpersistReport};
use crate::core::report::trace::TraceLine;
use crate::core::report::verify::VerifyReport;
use crate::core::report::watch::WatchLine;
use crate::render;

/// Prints a shell's completion script.
///
/// # Errors
/// Standard output cannot be written.
pub fn completions(shell: clap_complete::Shell, output: &Output) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "vpnfix", &mut script);
    output.print(script).map(|_| Outcome::Ok)
}

/// Prints the manual: the page of vpnfix itself, then one for each command.
///
/// # Errors
/// Standard output cannot be written.
pub fn manual(output: &Output) -> Result<Outcome, Failure> {
    let mut command = Cli::command();
    command.build();
    let mut pages = Vec::new();
    let subcommands = command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
    let documented = subcommands.filter(|subcommand| subcommand.get_name() != "help");
    for page in std::iter::once(&command).chain(documented) {
        clap_mangen::Man::new(page.clone())
            .title(page.get_display_name().unwrap_or("vpnfix"))
            .render(&mut pages)
            .map_err(|error| Failure::of("make the manual page", &error))?;
    }
    output.print(pages).map(|_| Outcome::Ok)
}

/// Prints the JSON Schema of a document.
///
/// # Errors
/// Standard output cannot be written.
pub fn schema(name: SchemaName, output: &Output) -> Result<Outcome, Failure> {
    let schema = match name {
        SchemaName::Diagnose => schema_for!(DiagnoseReport),
        SchemaName::Explain => schema_for!(ExplainReport),
        SchemaName::Trace => schema_for!(TraceLine),
        SchemaName::Fix => schema_for!(FixReport),
        SchemaName::Undo => schema_for!(UndoReport),
        SchemaName::Verify => schema_for!(VerifyReport),
        SchemaName::Persist => schema_for!(PersistReport),
        SchemaName::Unpersist => schema_for!(UnpersistReport),
        SchemaName::Doctor => schema_for!(DoctorReport),
        SchemaName::Watch => schema_for!(WatchLine),
        SchemaName::Bundle => schema_for!(Manifest),
        SchemaName::Timeline => schema_for!(Timeline),
        SchemaName::Changes => schema_for!(Changes),
        SchemaName::Report => schema_for!(IncidentReport),
        SchemaName::Check => schema_for!(CheckReport),
    };
    let text = render::document(&schema).map_err(|error| Failure::of("print the schema", &error))?;
    output.print(text).map(|_| Outcome::Ok)
}
