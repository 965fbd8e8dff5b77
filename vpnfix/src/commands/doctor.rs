//! `vpnfix doctor`.

use std::collections::BTreeSet;

use super::failure::Failure;
use super::settings::Settings;
use crate::core::report::doctor::{Check, CheckState, DoctorReport, Purpose, SCHEMA};
use crate::core::report::{Outcome, VERSION};
use crate::render;
use crate::system::bpf::{self, BpfError, KernelSupport};
use crate::system::host::{self, Capability};
use crate::system::netlink::Netlink;

/// Looks at what is there and prints it.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(settings: &Settings) -> Result<Outcome, Failure> {
    let mut checks = capabilities();
    checks.extend(kernel(&bpf::inspect()));
    checks.push(netlink());
    checks.push(run_directory());
    let lacking = checks.iter().any(|check| check.state == CheckState::Missing);
    let report = DoctorReport {
        schema: SCHEMA.into(),
        version: VERSION.into(),
        outcome: if lacking { Outcome::Unable } else { Outcome::Ok },
        host: host::facts(),
        checks,
    };
    settings.output.report(&report, render::doctor::text)?;
    Ok(report.outcome)
}

fn capabilities() -> Vec<Check> {
    use Capability::{Bpf, NetAdmin, NetRaw, Perfmon, SysAdmin};
    let (has, unreadable) = match host::capabilities() {
        Ok(has) => (has, None),
        Err(error) => (BTreeSet::new(), Some(error.to_string())),
    };
    let check = |name: &str, needed_for: Vec<Purpose>, any_of: &[Capability], why: &str| {
        let there = any_of.iter().any(|capability| has.contains(capability));
        let names: Vec<&str> = any_of.iter().map(|capability| capability.name()).collect();
        Check {
            name: name.into(),
            needed_for,
            state: if there { CheckState::Ok } else { CheckState::Missing },
            found: match (&unreadable, there) {
                (Some(error), _) => error.clone(),
                (None, true) => "held".into(),
                (None, false) => format!("not held: {why}"),
            },
            remedy: (!there).then(|| format!("run as root, or give the process {}", names.join(" or "))),
        }
    };
    vec![
        check("CAP_BPF", vec![Purpose::Trace, Purpose::Fix], &[Bpf, SysAdmin], "programs cannot be loaded"),
        check("CAP_PERFMON", vec![Purpose::Trace, Purpose::Fix], &[Perfmon, SysAdmin], "the kernel cannot be traced"),
        check("CAP_NET_ADMIN", vec![Purpose::Fix], &[NetAdmin], "rules cannot be changed"),
        check("CAP_NET_RAW", vec![Purpose::Fix], &[NetRaw], "peers cannot be pinged; `fix --no-probe` does without"),
    ]
}

fn kernel(support: &KernelSupport) -> Vec<Check> {
    let mut checks = vec![tracing_check("kernel types (BTF)", &support.types, "described by the kernel")];
    if support.types.is_ok() {
        let told = tracing_check("kernel programs", &support.loading, "the kernel takes them");
        checks.extend(Some(told).filter(|check| check.state == CheckState::Missing));
    }
    for hook in &support.hooks {
        let state = match (hook.attached, hook.note.is_some(), hook.program.is_required()) {
            (true, false, _) => CheckState::Ok,
            (true, true, _) | (false, _, false) => CheckState::Reduced,
            (false, _, true) => CheckState::Missing,
        };
        checks.push(Check {
            name: hook.name.into(),
            needed_for: vec![Purpose::Trace, Purpose::Fix],
            state,
            found: hook.note.clone().unwrap_or_else(|| "can be attached".into()),
            remedy: (state == CheckState::Reduced && hook.program == bpf::Program::FibRules)
                .then(|| "not needed: the tables' tracepoint tells enough to work with".into()),
        });
    }
    checks
}

fn tracing_check(name: &str, result: &Result<(), BpfError>, found: &str) -> Check {
    let lacks = result.as_ref().err();
    Check {
        name: name.into(),
        needed_for: vec![Purpose::Trace, Purpose::Fix],
        state: if lacks.is_some() { CheckState::Missing } else { CheckState::Ok },
        found: lacks.map_or_else(|| found.into(), |error| Failure::of("not usable", error).message),
        remedy: lacks.and_then(BpfError::advice).map(Into::into),
    }
}

fn netlink() -> Check {
    let opened = tokio::runtime::Builder::new_current_thread().enable_all().build().map(|runtime| {
        runtime.block_on(async {
            let netlink = Netlink::connect().map_err(|error| error.to_string())?;
            netlink.rules().await.map(|rules| rules.len()).map_err(|error| error.to_string())
        })
    });
    let result = opened.map_err(|error| error.to_string()).and_then(|result| result);
    Check {
        name: "routing netlink".into(),
        needed_for: vec![Purpose::Diagnose, Purpose::Trace, Purpose::Fix],
        state: if result.is_ok() { CheckState::Ok } else { CheckState::Missing },
        found: match result {
            Ok(rules) => format!("answers ({rules} policy rules here)"),
            Err(error) => error,
        },
        remedy: None,
    }
}

fn run_directory() -> Check {
    let directory = crate::action::lock::run_directory();
    let usable =
        host::may_write(&directory) || (!directory.exists() && directory.parent().is_some_and(host::may_write));
    Check {
        name: "run directory".into(),
        needed_for: vec![Purpose::Fix],
        state: if usable { CheckState::Ok } else { CheckState::Missing },
        found: if usable {
            format!("{} for the lock and the undo journal", directory.display())
        } else {
            format!("{} cannot be written", directory.display())
        },
        remedy: (!usable).then(|| "run as root".into()),
    }
}
