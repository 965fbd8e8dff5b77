//! One virtual machine: started by virtme-ng, watched through the files that it writes, and ended for certain.

use std::{
    fs::{self, File},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{
    accel::Accelerator,
    jobs::Job,
    kernel::Kernel,
    script::{self, Outcome},
    series::Series,
};
use crate::{process, setup::VirtmeNg, workspace};

/// From start to the script's first line; seen under emulation: 6 to 15 s alone.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// What a machine may need beside its jobs: to boot and to power off.
const SPARE: Duration = Duration::from_secs(180);
/// After this even a machine whose jobs all keep within their limits is ended.
const MACHINE_LIMIT: Duration = Duration::from_secs(45 * 60);
const POLL: Duration = Duration::from_millis(200);
/// So much of a failed job's output, or of the console, is shown; the files keep all.
const SHOWN_LINES: usize = 120;

/// A processor model and the rest that a kernel may be picky about, in the order in which they are tried.
#[derive(Clone, Copy)]
enum Hardware {
    /// The real processor.
    Kvm,
    /// All that the emulator can do, with both processors on one thread: on a host with as many processors as
    /// machines, a thread for each was seen to take twice the work and three times as long.
    Emulated,
    /// An old processor, one of it, and no IO-APIC: boots where the one above crashes.
    Plain,
}

impl Hardware {
    fn tried_with(accelerator: Accelerator) -> &'static [Self] {
        match accelerator {
            Accelerator::Kvm => &[Self::Kvm, Self::Emulated, Self::Plain],
            Accelerator::Emulation => &[Self::Emulated, Self::Plain],
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["--cpus", "2"],
            Self::Emulated => &["--cpus", "2", "--disable-kvm", "--qemu-opts=-cpu max -accel tcg,thread=single"],
            Self::Plain => &["--cpus", "1", "--disable-kvm", "--qemu-opts=-cpu Nehalem", "--append=noapic"],
        }
    }
}

/// Where a machine of this series keeps scripts, output, statuses and the console's log: all that it can write. Each of
/// several machines with one kernel, counted from 0, has its own.
pub fn folder(series: Series, number: usize) -> PathBuf {
    let name = if number == 0 { series.name().to_owned() } else { format!("{}-{}", series.name(), number + 1) };
    workspace::vm().join("run").join(name)
}

/// A machine with its jobs.
pub struct Guest<'a> {
    kernel: &'a Kernel,
    jobs: &'a [Job],
    folder: PathBuf,
}

impl<'a> Guest<'a> {
    /// A machine that is still to be booted.
    pub fn new(kernel: &'a Kernel, jobs: &'a [Job], number: usize) -> Self {
        Self { kernel, jobs, folder: folder(kernel.series, number) }
    }

    /// Where scripts, output, statuses and the console's log lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Boots the machine, waits for its end, and tells how each job ended as soon as it is known.
    ///
    /// # Errors
    /// Fails if the kernel does not come up on any hardware, with the console's last lines, and if interrupted.
    pub fn boot(
        &self,
        accelerator: Accelerator,
        interrupted: &AtomicBool,
        mut told: impl FnMut(&Job, Outcome),
    ) -> Result<()> {
        for &hardware in Hardware::tried_with(accelerator) {
            self.clear()?;
            let mut machine = Machine::start(self.command(hardware)?)?;
            if self.watch(&mut machine, interrupted, &mut told)? {
                return Ok(());
            }
            eprintln!("vm {}: did not boot; its last words:\n{}", self.kernel.series.name(), self.console_tail());
        }
        bail!("{} did not boot; see {}", self.kernel.release, self.console().display())
    }

    /// One report of a job, printed whole: machines run side by side.
    pub fn tell(&self, job: &Job, outcome: Outcome) {
        let output = fs::read(self.folder.join(script::output_file(job))).unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        let heading = format!("vm {}: {}", self.kernel.series.name(), job.name);
        match outcome {
            Outcome::Ended { status: 0, seconds } => {
                let closing: String = output
                    .lines()
                    .filter(|line| line.starts_with("test result:"))
                    .map(|line| format!("\n    {line}"))
                    .collect();
                println!("{heading}: passed in {seconds} s{closing}");
            }
            Outcome::Ended { status, seconds } => {
                println!("{heading}: FAILED with status {status} after {seconds} s\n{}", tail(&output));
            }
            Outcome::TimedOut { seconds } => println!("{heading}: FAILED, ended after {seconds} s\n{}", tail(&output)),
            Outcome::Lost => {
                println!(
                    "{heading}: FAILED, the machine stopped\n{}\nconsole:\n{}",
                    tail(&output),
                    self.console_tail()
                );
            }
        }
    }

    fn clear(&self) -> Result<()> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).with_context(|| format!("remove {}", self.folder.display()))?;
        }
        fs::create_dir_all(&self.folder).with_context(|| format!("create {}", self.folder.display()))?;
        let script = self.script();
        let text = script::script(&self.folder.to_string_lossy(), self.jobs, self.kernel.series);
        fs::write(&script, text).with_context(|| format!("write {}", script.display()))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).context("make the machine's script executable")
    }

    fn script(&self) -> PathBuf {
        self.folder.join("script.sh")
    }

    fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    fn console_tail(&self) -> String {
        let console = fs::read(self.console()).unwrap_or_default();
        tail(&String::from_utf8_lossy(&console))
    }

    fn command(&self, hardware: Hardware) -> Result<Command> {
        let programs = VirtmeNg::installed().programs;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(
            std::iter::once(programs.clone()).chain(std::env::split_paths(&path)).chain(["/usr/sbin".into()]),
        )
        .context("put virtme-ng on PATH")?;
        let console = File::create(self.console()).context("create the console's log")?;
        let mut command = process::command(programs.join("vng"));
        command.arg("--verbose").arg("--run").arg(&self.kernel.image);
        command.args(["--force-9p", "--user", "root", "--memory", "1G"]).args(hardware.options());
        command.arg(format!("--rwdir={}", self.folder.display())).arg("--").arg(self.script());
        command.current_dir(&self.folder);
        // virtme-ng reads and keeps files under the home folder; the user's own stay out of it.
        command.env("PATH", path).env("HOME", workspace::vm().join("home"));
        command.stdin(Stdio::null()).stdout(console.try_clone().context("share the console's log")?).stderr(console);
        Ok(command)
    }

    /// Follows the machine to its end. Says whether its script ever started.
    fn watch(
        &self,
        machine: &mut Machine,
        interrupted: &AtomicBool,
        told: &mut impl FnMut(&Job, Outcome),
    ) -> Result<bool> {
        let began = Instant::now();
        let mut waiting = self.jobs.iter().peekable();
        loop {
            // Asked before the files are read: what the machine wrote before its end is then seen below.
            let ended = machine.has_ended()?;
            while let Some(job) = waiting.peek()
                && let Some(outcome) = self.outcome(job)
            {
                told(job, outcome);
                waiting.next();
            }
            let started = self.folder.join(script::STARTED).exists();
            let overdue = began.elapsed() > if started { self.limit() } else { BOOT_LIMIT };
            if interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if ended || overdue || (started && waiting.peek().is_none()) {
                if started {
                    waiting.for_each(|job| told(job, Outcome::Lost));
                }
                return Ok(started);
            }
            thread::sleep(POLL);
        }
    }

    fn outcome(&self, job: &Job) -> Option<Outcome> {
        let contents = fs::read_to_string(self.folder.join(script::status_file(job))).ok()?;
        Outcome::read(&contents)
    }

    /// The time after which the machine itself must hang: each job has a limit of its own.
    fn limit(&self) -> Duration {
        let jobs: u64 = self.jobs.iter().map(|job| job.limit).sum();
        MACHINE_LIMIT.min(SPARE + Duration::from_secs(jobs * self.kernel.series.patience()))
    }
}

/// A running machine with all processes that belong to it, ended when dropped.
struct Machine {
    child: Child,
}

impl Machine {
    fn start(mut command: Command) -> Result<Self> {
        // virtme-ng runs QEMU through shells: a group of their own makes it possible to end them all.
        let child = command.process_group(0).spawn().context("start virtme-ng")?;
        Ok(Self { child })
    }

    fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("wait for the machine")?.is_some())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            // Gone already is as good.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default().join("\n")
}
