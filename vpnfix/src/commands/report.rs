//! `vpnfix report`: a bundle's report, or whether the bundle is whole. It needs no privilege and asks no kernel.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::cli::{Format, ReportArgs};
use super::failure::Failure;
use super::output;
use crate::action::bundle::{self, Bundle, BundleError};
use crate::core::report::Outcome;
use crate::core::report::check::CheckReport;
use crate::core::report::incident::IncidentReport;
use crate::core::report::watch::{INCIDENT_SCHEMA, Incident};
use crate::render::{self, Palette};

/// Most bytes of an incident of `watch`.
const INCIDENT_BYTES: u64 = 16 << 20;

/// Renders the report, or checks the bundle.
///
/// # Errors
/// The bundle cannot be read or understood, or the report not be written.
pub fn run(args: &ReportArgs, format: Format, colored: bool) -> Result<Outcome, Failure> {
    let palette = Palette::new(colored);
    if args.check {
        let Bundle { manifest, files } = read(&args.bundle)?;
        let report = CheckReport::of(args.bundle.display().to_string(), &manifest, &files);
        let text = match format {
            Format::Text => check_text(&report, palette),
            Format::Json => json(&report)?,
            Format::Html | Format::Markdown => {
                return Err(Failure::usage("report --check: --format text or json"));
            }
        };
        output::print(text)?;
        return Ok(report.outcome);
    }
    let report = match incident(&args.bundle)? {
        Some(incident) => IncidentReport::of_incident(&incident),
        None => IncidentReport::of(&read(&args.bundle)?.contents()),
    };
    let Some(path) = &args.output else {
        output::print(rendered(&report, format, palette)?)?;
        return Ok(Outcome::Ok);
    };
    // A format that was asked for comes before the ending; text is what nobody asked for.
    let format = match (format, path.extension().and_then(|ending| ending.to_str())) {
        (Format::Text, Some("html" | "htm")) => Format::Html,
        (Format::Text, Some("md")) => Format::Markdown,
        (Format::Text, Some("json")) => Format::Json,
        (format, _) => format,
    };
    let text = rendered(&report, format, Palette::new(false))?;
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = written.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Failure::of(&format!("write {}", path.display()), &error))?;
    Ok(Outcome::Ok)
}

fn rendered(report: &IncidentReport, format: Format, palette: Palette) -> Result<String, Failure> {
    match format {
        Format::Text => Ok(render::incident::text(report, palette)),
        Format::Html => Ok(render::incident::html(report)),
        Format::Markdown => Ok(render::incident::markdown(report)),
        Format::Json => json(report),
    }
}

fn json<T: serde::Serialize>(report: &T) -> Result<String, Failure> {
    render::document(report).map_err(|error| Failure::of("print the report", &error))
}

/// Reads a bundle.
///
/// # Errors
/// It cannot be read, or is none.
pub(super) fn read(path: &Path) -> Result<Bundle, Failure> {
    bundle::read(path).map_err(|error| {
        let failure = Failure::of("read the bundle", &error);
        match error {
            BundleError::NotABundle(_) | BundleError::NoManifest(_) => {
                failure.hint("bundles are made by `vpnfix capture -o DIR|FILE.tar.zst`")
            }
            _ => failure,
        }
    })
}

/// An incident of `watch`, if the file is one.
fn incident(path: &Path) -> Result<Option<Incident>, Failure> {
    let failed = |error: std::io::Error| Failure::of(&format!("read {}", path.display()), &error);
    if fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(None);
    }
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(INCIDENT_BYTES).read_to_end(&mut text)).map_err(failed)?;
    if !text.starts_with(b"{") {
        return Ok(None);
    }
    let understood = || Failure::unable(format!("{} is neither a bundle nor an incident", path.display()));
    let incident: Incident = serde_json::from_slice(&text)
        .map_err(|error| Failure::of(&format!("understand the incident {}", path.display()), &error))?;
    if incident.schema == INCIDENT_SCHEMA { Ok(Some(incident)) } else { Err(understood()) }
}

fn check_text(report: &CheckReport, palette: Palette) -> String {
    let mut out = String::new();
    for fault in &report.faults {
        let _ = writeln!(out, "  {}", palette.bad(render::incident::clean(&fault.to_string())));
    }
    for missing in &report.missing {
        let told = format!("not in it: {}: {}", missing.file, missing.why);
        let _ = writeln!(out, "  {}", palette.faint(render::incident::clean(&told)));
    }
    let _ = match report.outcome {
        Outcome::Ok => {
            let told = format!("WHOLE: {} files, as they were written", report.files);
            writeln!(out, "{}", palette.good(told))
        }
        _ => writeln!(out, "{}", palette.bad("NOT WHOLE, or not as it was written")),
    };
    out
}
