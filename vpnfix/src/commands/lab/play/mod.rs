//! `vpnfix lab run`: plays the incident from break to proof, checks each step, and takes the lab down again.
//!
//! vpnfix is started as a user would start it, and its exit status is one witness of two: the other is what `ip`, `ping`
//! and a TCP connection say, which know nothing of vpnfix.

mod command;
mod interrupt;
mod reading;
mod scene;
mod table;

use std::fs;
use std::io::{self, Write};

use anyhow::{Context, bail};

use self::scene::Scene;
use super::layout::Names;
use super::state::LabState;
use super::topology::{self, Lab};
use super::{DONE, STEP_FAILED, program};

/// Plays the incident in a lab of its own.
///
/// # Errors
///
/// When the lab could not be built, asked or removed. A step that went otherwise than told is told on the spot and
/// gives the status [`STEP_FAILED`].
pub fn run(names: &Names) -> anyhow::Result<u8> {
    program::ping()?;
    interrupt::watch()?;
    let state = LabState::lock(names)?;
    if state.finished().is_some() {
        bail!("a lab is up already\nremove it first: vpnfix lab down");
    }
    let standing = Standing { names, state: Some(state) };
    let played = play(names, &standing);
    let removed = standing.remove();
    match played {
        Ok(()) => removed.map(|()| {
            say("\nThe lab is removed. Every step went as told.");
            DONE
        }),
        Err(Stop::Step { step, why }) => {
            say(&format!("\nNot as told, in step \"{step}\": {why}"));
            if let Err(error) = removed {
                say(&format!("And the lab could not be removed: {error:#}"));
            }
            eprintln!("vpnfix: lab run: step \"{step}\": {why}");
            Ok(STEP_FAILED)
        }
        Err(Stop::Cannot(error)) => Err(error),
    }
}

/// Why a play ended before its end.
#[derive(Debug)]
enum Stop {
    /// A step went otherwise than told.
    Step {
        /// The step's title.
        step: &'static str,
        /// What was told and what was found.
        why: String,
    },
    /// Something that the play itself needs failed.
    Cannot(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Cannot(error.into())
    }
}

fn play(names: &Names, standing: &Standing<'_>) -> Result<(), Stop> {
    let state = standing.state.as_ref().context("the lab's files are locked")?;
    let commands_folder = state.commands_folder();
    let lab = Lab::build(names, state)?;
    fs::create_dir_all(&commands_folder).with_context(|| format!("make {}", commands_folder.display()))?;
    Scene::new(&lab, commands_folder)?.play()
}

/// A lab that must not outlive the play, however that ends; a panic included.
struct Standing<'a> {
    names: &'a Names,
    state: Option<LabState>,
}

impl Standing<'_> {
    fn remove(mut self) -> anyhow::Result<()> {
        match self.state.take() {
            Some(state) => take_down(self.names, state),
            None => Ok(()),
        }
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.state.take()
            && let Err(error) = take_down(self.names, state)
        {
            eprintln!("vpnfix: lab run: remove the lab: {error:#}");
        }
    }
}

fn take_down(names: &Names, state: LabState) -> anyhow::Result<()> {
    topology::remove(names, &state)?;
    Ok(state.discard()?)
}

/// Tells the reader. One that went away is no reason to end the play: its exit status is still asked for.
fn say(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}
