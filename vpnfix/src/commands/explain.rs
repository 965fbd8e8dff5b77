//! `vpnfix explain`.

use super::assess::{Access, Host, in_namespace, netlink_failure};
use super::cli::{ExplainArgs, Protocol};
use super::failure::Failure;
use super::settings::Settings;
use crate::core::explain::{self, Case};
use crate::core::model::{Answer, Family, Question, Snapshot};
use crate::core::plan::{self, Strategy};
use crate::core::report::Outcome;
use crate::core::report::explain::{ExplainReport, PacketVerdict};
use crate::core::tunnel::NoSuchDevice;
use crate::core::walk::{Fib, LOOPBACK_INDEX};
use crate::render;

/// ICMP's IP protocol numbers (IANA).
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// Explains one packet's way and prints the report. `every_rule`: the text tells also those that do not match.
///
/// # Errors
/// The host's routing cannot be read, or it lacks what was named.
pub fn run(settings: &Settings, args: &ExplainArgs, every_rule: bool) -> Result<Outcome, Failure> {
    let report = report(settings, args)?;
    settings.output.report(&report, |report, palette| render::explain::text(report, every_rule, palette))?;
    Ok(report.outcome)
}

/// The report alone, for programs that link vpnfix.
///
/// # Errors
/// The host's routing cannot be read, or it lacks what was named.
pub fn report(settings: &Settings, args: &ExplainArgs) -> Result<ExplainReport, Failure> {
    in_namespace(settings, async |access| {
        let host = Host::read(&access, settings, &[]).await?;
        let fib = Fib::new(&host.snapshot);
        let question = question(&host.snapshot, args)?;
        explain::check(&fib, &question).map_err(|error| match error.is_usage() {
            true => Failure::usage(format!("explain: {error}")),
            false => Failure::of("explain", &error).hint("for a packet that comes in, name its device with --iif"),
        })?;
        of(&access, &host, &question)
    })
}

/// The report on a packet that can be explained, by ways to the kernel that are open already.
///
/// # Errors
/// The kernel cannot be asked.
pub(super) fn of(access: &Access, host: &Host, question: &Question) -> Result<ExplainReport, Failure> {
    let fib = Fib::new(&host.snapshot);
    let answer = answer(access, question)?;
    let case = Case {
        fib: &fib,
        tunnels: &host.tunnels,
        destinations: &host.destinations,
        clues: &host.clues,
        question,
        answer: answer.as_ref(),
    };
    let mut report = explain::explain(case);
    if report.verdict == PacketVerdict::Wrong {
        add_plan(access, host, case, &mut report)?;
    }
    Ok(report)
}

/// What `fix` would do about it.
fn add_plan(access: &Access, host: &Host, case: Case<'_>, report: &mut ExplainReport) -> Result<(), Failure> {
    let judgement = host.judge(access)?;
    let controls = host.controls(access, &judgement.findings)?;
    let situation = host.situation(case.fib, &judgement.findings, &controls);
    match plan::plan(situation, Strategy::Auto, None) {
        Ok(plan) => explain::add_plan(case, report, &judgement.findings, &plan),
        Err(error) => report.notes.push(format!("there is no plan: {error}")),
    }
    Ok(())
}

/// The kernel's answer; nothing where it takes no such question.
fn answer(access: &Access, question: &Question) -> Result<Option<Answer>, Failure> {
    let family = Family::of(question.destination);
    if question.ip_protocol.is_some_and(|protocol| !explain::kernel_takes(family, protocol)) {
        return Ok(None);
    }
    let answers = access.queries.ask(vec![question.clone()]);
    let answers = answers.map_err(|error| netlink_failure("ask the kernel for the route", &error))?;
    Ok(answers.into_iter().next())
}

fn question(snapshot: &Snapshot, args: &ExplainArgs) -> Result<Question, Failure> {
    let device = |option: &str, name: &Option<String>| {
        let index = name.as_ref().map(|name| index(snapshot, name)).transpose();
        index.map_err(|error| Failure::of(option, &error))
    };
    let input_interface = device("explain --iif", &args.iif)?.filter(|index| *index != LOOPBACK_INDEX);
    let icmp = match Family::of(args.to) {
        Family::V4 => ICMP,
        Family::V6 => ICMP_V6,
    };
    Ok(Question {
        source: args.from,
        input_interface,
        output_interface: device("explain --oif", &args.oif)?,
        mark: args.mark.unwrap_or(0),
        // A packet that comes in belongs to no user.
        uid: args.uid.or(if input_interface.is_some() { None } else { Some(0) }),
        ip_protocol: args.proto.map(|protocol| match protocol {
            Protocol::Icmp => icmp,
            Protocol::Number(number) => number,
        }),
        source_port: args.sport,
        destination_port: args.dport,
        tos: args.tos.or(args.dscp.map(|dscp| dscp << 2)).unwrap_or(0),
        ..Question::plain(args.to)
    })
}

fn index(snapshot: &Snapshot, name: &str) -> Result<u32, NoSuchDevice> {
    snapshot.link_named(name).map(|link| link.index).ok_or_else(|| {
        let there: Vec<&str> = snapshot.links.iter().map(|link| link.name.as_str()).collect();
        NoSuchDevice { name: name.into(), there: there.join(", ") }
    })
}
