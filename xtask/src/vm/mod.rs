//! Scenes in virtual machines: Debian's own kernels, booted by QEMU on this host's root file system.
//!
//! What runs in a machine stands in [`jobs`]; everything else here brings it there and its results back.

mod accel;
mod executables;
mod guest;
mod jobs;
mod kernel;
mod script;
mod series;
mod system;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, bail};
use signal_hook::{consts::TERM_SIGNALS, flag};

use guest::Guest;
pub use jobs::GOLDEN;
use jobs::{Extent, Job};
use kernel::Kernel;
use script::Outcome;
pub use series::Series;

/// The machine that boots a system of its own, and how it is named among the scenes.
const SYSTEM: &str = "vm systemd";
const SYSTEM_SCENE: &str = "systemd";

/// An emulated machine takes one processor of the host.
const MACHINES_AT_ONCE: usize = 2;

/// What is to be played, and where.
#[derive(Clone, Copy)]
pub struct Chosen<'a> {
    /// Kernels; all of them if none is named.
    pub kernels: &'a [Series],
    /// On one kernel all scenes that hang on the kernel, and on the others what loads, attaches, traces and repairs.
    pub brief: bool,
    /// Scenes; all of them if none is named.
    pub scenes: &'a [String],
}

/// Boots each kernel, runs the jobs there, and gives one line for each.
///
/// # Errors
/// Fails if the tests cannot be built, a scene is not known, or the wait is interrupted; what goes wrong with one kernel is
/// that kernel's line.
pub fn run(chosen: Chosen<'_>) -> Result<Vec<(String, Result<String>)>> {
    let Chosen { brief, scenes, .. } = chosen;
    let kernels = if chosen.kernels.is_empty() { Series::ALL } else { chosen.kernels };
    let mut programs = executables::build()?;
    let named = |name: &str| scenes.iter().any(|scene| scene == name);
    let with_system = !brief && (scenes.is_empty() || named(SYSTEM_SCENE));
    if !scenes.is_empty() {
        let known = |name: &str| name == SYSTEM_SCENE || programs.scenes.iter().any(|scene| scene.name == name);
        if let Some(unknown) = scenes.iter().find(|name| !known(name)) {
            bail!("there is no scene {unknown}: they are the files of tests/tests, and {SYSTEM_SCENE}");
        }
        programs.scenes.retain(|scene| named(&scene.name));
    }
    let (mut shares, mut done) = (Vec::new(), Vec::new());
    for (series, kernel) in kernel::provide(kernels) {
        match kernel {
            Ok(kernel) => {
                let mut of_kernel = Share::all(kernel, &programs, extent(series, chosen));
                if series == Series::THOROUGH && with_system {
                    let number = of_kernel.len();
                    let first = of_kernel.first().context("a kernel without jobs")?;
                    match Share::with_system(first, number, &programs) {
                        Ok(share) => of_kernel.push(share),
                        Err(error) => done.push((series, number, SYSTEM.to_owned(), Err(error))),
                    }
                }
                // The machine was named alone: the others have nothing to play.
                of_kernel.retain(|share| !programs.scenes.is_empty() || share.name == SYSTEM);
                shares.extend(of_kernel);
            }
            Err(error) => done.push((series, 0, format!("vm {}", series.name()), Err(error))),
        }
    }
    if brief && kernels.contains(&Series::THOROUGH) {
        // Its three boots take a minute here, and a quarter of an hour in an emulated machine.
        let played = system::play(&programs.vpnfix);
        done.push((Series::THOROUGH, usize::MAX, "systemd on this host's kernel".to_owned(), played));
    }
    // What takes longest starts first, which is taken from the end.
    shares.sort_by_key(|share| (share.jobs.len(), std::cmp::Reverse((share.kernel.series, share.number))));
    let accelerator = accel::probe();
    eprintln!("vm: {} machines, {}", shares.len(), accelerator.told());

    let interrupted = interruption()?;
    let (waiting, done) = (Mutex::new(shares), Mutex::new(done));
    thread::scope(|scope| {
        for _ in 0..MACHINES_AT_ONCE {
            scope.spawn(|| {
                while let Some(share) = take(&waiting) {
                    let result = play(&share, accelerator, &interrupted);
                    lock(&done).push((share.kernel.series, share.number, share.name.clone(), result));
                }
            });
        }
    });
    if interrupted.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    let mut done = done.into_inner().unwrap_or_else(|poison| poison.into_inner());
    done.sort_by_key(|(series, number, ..)| (*series, *number));
    Ok(done.into_iter().map(|(_, _, name, result)| (name, result)).collect())
}

/// What one machine does of what is to be done on its kernel.
struct Share {
    kernel: Arc<Kernel>,
    jobs: Vec<Job>,
    /// From 0.
    number: usize,
    name: String,
}

impl Share {
    fn all(kernel: Kernel, programs: &executables::Programs, extent: Extent) -> Vec<Self> {
        let kernel = Arc::new(kernel);
        let parts = jobs::all(programs, extent);
        let of = parts.len();
        let series = kernel.series.name();
        let name =
            |number| if of == 1 { format!("vm {series}") } else { format!("vm {series} ({} of {of})", number + 1) };
        let share = |(number, jobs)| Self { kernel: Arc::clone(&kernel), jobs, number, name: name(number) };
        parts.into_iter().enumerate().map(share).collect()
    }

    /// The machine that boots a system of its own, beside the others of its kernel.
    fn with_system(beside: &Self, number: usize, programs: &executables::Programs) -> Result<Self> {
        let root = system::managers().context("make the system with systemd")?;
        let jobs = jobs::with_system(system::job(&root, &programs.vpnfix));
        Ok(Self { kernel: Arc::clone(&beside.kernel), jobs, number, name: SYSTEM.to_owned() })
    }
}

/// Boots the kernel that golden hosts are recorded on, and records these hosts there (all of them if none is named).
///
/// # Errors
/// Fails if the recorder cannot be built, or a host cannot be recorded; the others are then recorded all the same.
pub fn record(hosts: &[String]) -> Result<()> {
    let recorder = executables::recorder()?;
    let interrupted = interruption()?;
    for (_, kernel) in kernel::provide(&[Series::THOROUGH]) {
        let share =
            Share { kernel: Arc::new(kernel?), jobs: jobs::record(&recorder, hosts), number: 0, name: String::new() };
        play(&share, accel::probe(), &interrupted)?;
    }
    Ok(())
}

/// Where [`record`] leaves the recordings, a folder for each host.
pub fn recordings() -> PathBuf {
    guest::folder(Series::THOROUGH, 0).join(jobs::RECORDINGS)
}

/// Set once a signal asks to end.
fn interruption() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in TERM_SIGNALS {
        flag::register(*signal, Arc::clone(&interrupted)).context("catch signals")?;
    }
    Ok(interrupted)
}

/// In a brief run all scenes are played on one kernel only, and those that hang on no kernel in no machine.
fn extent(series: Series, chosen: Chosen<'_>) -> Extent {
    match (chosen.brief, series) {
        _ if !chosen.scenes.is_empty() => Extent::Named,
        (false, _) => Extent::All,
        (true, Series::THOROUGH) => Extent::Thorough,
        (true, _) => Extent::Brief,
    }
}

fn take<T>(waiting: &Mutex<Vec<T>>) -> Option<T> {
    lock(waiting).pop()
}

/// A poisoned lock means that another machine's thread panicked; what it guards is whole all the same.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// Runs the jobs in one machine, with a line for each as it ends.
fn play(share: &Share, accelerator: accel::Accelerator, interrupted: &AtomicBool) -> Result<String> {
    let began = Instant::now();
    let (kernel, jobs) = (&*share.kernel, &share.jobs);
    let guest = Guest::new(kernel, jobs, share.number);
    let mut failed = Vec::new();
    guest.boot(accelerator, interrupted, |job, outcome| {
        guest.tell(job, outcome);
        if !matches!(outcome, Outcome::Ended { status: 0, .. }) {
            failed.push(job.name.clone());
        }
    })?;
    if failed.is_empty() {
        let seconds = began.elapsed().as_secs();
        Ok(format!("{} jobs on {} in {seconds} s", jobs.len(), kernel.release))
    } else {
        Err(anyhow!("{} on {}; see {}", failed.join(", "), kernel.release, guest.folder().display()))
    }
}
