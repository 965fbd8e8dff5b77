//! `vpnfix lab`: the incident as a playable scene, in network namespaces of its own.
//!
//! `up` builds a customer gateway, a router and two tunnel endpoints and lets a policy rule hijack the tunnels' traffic
//! as strongSwan's does; `run` plays the story from break to proof with this very binary and checks every step with
//! independent readers; `down` removes all of it, also what a killed `up` or `run` left behind.
//!
//! Only the four namespaces named after the prefix are made, changed or removed, and only inside them is traffic sent.

mod ip;
mod ipsec;
mod layout;
mod netns;
mod play;
mod program;
mod responder;
mod state;
mod topology;

use std::io::{self, Write};
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use self::layout::{Host, Names};
use self::state::LabState;
use self::topology::Lab;

/// Exit status: done, or nothing to do.
pub const DONE: u8 = 0;
/// Exit status of `lab run`: a step did not go as told.
pub const STEP_FAILED: u8 = 1;
/// Exit status: a privilege, a program, a kernel feature or a system call is missing or failed.
pub const CANNOT: u8 = 4;

/// Arguments of `vpnfix lab`.
#[derive(Args, Debug, Clone)]
pub struct LabArgs {
    #[command(subcommand)]
    command: LabCommand,

    /// Names of the namespaces begin with this
    #[arg(long, global = true, hide = true, default_value = "vpnfix-lab", value_name = "NAME")]
    prefix: Prefix,
}

#[derive(Subcommand, Debug, Clone)]
enum LabCommand {
    /// Build the lab: two tunnels, hijacked by rule 220, to try vpnfix on
    Up {
        /// Leave out rule 220: a lab where all is well
        #[arg(long)]
        healthy: bool,
    },
    /// Remove the lab, also what a killed run left behind
    Down,
    /// Play the incident from break to proof, check each step, remove the lab
    Run,
    /// Answer on TCP 179 inside a namespace of the lab until that namespace is gone
    #[command(hide = true)]
    Responder {
        /// Name of the namespace, one of the prefix's four
        #[arg(long, value_name = "NAME")]
        ns: String,
    },
}

impl LabCommand {
    const fn name(&self) -> &'static str {
        match self {
            Self::Up { .. } => "lab up",
            Self::Down => "lab down",
            Self::Run => "lab run",
            Self::Responder { .. } => "lab responder",
        }
    }
}

/// What the names of a lab's namespaces begin with. It becomes part of file names, so only letters, digits, `-`, `_`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Prefix(String);

impl FromStr for Prefix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() || text.len() > 64 || text.starts_with('-') || !text.chars().all(plain) {
            return Err("a prefix is 1 to 64 letters, digits, `-` or `_`, and does not begin with `-`");
        }
        Ok(Self(text.to_owned()))
    }
}

/// Runs `vpnfix lab …` and returns the exit status. Reports go to standard output.
///
/// # Errors
///
/// When the lab cannot be built, played or removed at all (exit status [`CANNOT`]): not root, `ip` or `ping` missing, a
/// failed system call. A step of `lab run` that went otherwise than told is no error but [`STEP_FAILED`].
pub fn run(args: &LabArgs) -> anyhow::Result<u8> {
    let command = args.command.name();
    if !crate::system::host::is_root() {
        bail!("{command}: must be root: the lab lives in network namespaces\nrun it as: sudo vpnfix {command}");
    }
    let names = Names::new(&args.prefix.0);
    match &args.command {
        LabCommand::Up { healthy } => up(&names, *healthy).context(command),
        LabCommand::Down => down(&names).context(command),
        LabCommand::Run => play::run(&names).context(command),
        LabCommand::Responder { ns } => responder::serve(&names, ns).map(|()| DONE).context(command),
    }
}

fn up(names: &Names, healthy: bool) -> anyhow::Result<u8> {
    let state = LabState::lock(names)?;
    if let Some(tunnels) = state.finished() {
        say(&format!("The lab is up already.\n{}", hints(names, tunnels.options())));
        return Ok(DONE);
    }
    let build = || {
        let lab = Lab::build(names, &state)?;
        if !healthy {
            lab.hijack()?;
        }
        state.mark_finished(lab.tunnels().kind())?;
        Ok::<_, anyhow::Error>(lab)
    };
    let lab = build().inspect_err(|_| {
        // The error that stopped the building is the one to tell; what could not be removed, `lab down` will name.
        let _ = topology::remove(names, &state);
    })?;
    let told = if healthy {
        "The lab is up, and all is well in it."
    } else {
        "The lab is up: both tunnels stand, and rule 220 hijacks what should enter them."
    };
    say(&format!("{told}\n{}\n{}", lab.tunnels().told(), hints(names, lab.tunnels().kind().options())));
    Ok(DONE)
}

fn down(names: &Names) -> anyhow::Result<u8> {
    if !LabState::exists(names) && names.present().is_empty() {
        say("There is no lab to remove.");
        return Ok(DONE);
    }
    let state = LabState::lock(names)?;
    topology::remove(names, &state)?;
    state.discard()?;
    say("The lab is removed.");
    Ok(DONE)
}

fn hints(names: &Names, options: &str) -> String {
    let cgw = names.of(Host::Cgw);
    format!(
        "  look:    vpnfix --netns {cgw}{options} diagnose\n  repair:  vpnfix --netns {cgw}{options} fix\n  \
         inside:  ip netns exec {cgw} bash\n  remove:  vpnfix lab down"
    )
}

/// Writes a line of the report. A reader that went away is no reason to fail: the work is done all the same.
fn say(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::Prefix;

    #[test]
    fn a_prefix_is_safe_as_part_of_a_file_name() {
        for good in ["vpnfix-lab", "t_1", "A"] {
            assert_eq!(good.parse(), Ok(Prefix(good.to_owned())));
        }
        for bad in ["", "-x", "../x", "a/b", "a b", "a.b", &"x".repeat(65)] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad:?} was taken");
        }
    }
}
