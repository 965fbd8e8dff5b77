//! Other programs, and what they use.

use std::{
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

/// Runs a program and gives its standard output.
pub fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {program} {}", arguments.join(" ")))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {} failed: {}: {}", arguments.join(" "), output.status, complaint.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed no UTF-8"))
}

/// Runs `ip` commands, all in one process.
pub fn ip_batch(lines: impl IntoIterator<Item = impl AsRef<str>>) -> Result<()> {
    let text = lines.into_iter().fold(String::new(), |text, line| text + line.as_ref() + "\n");
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start ip")?;
    let mut input = child.stdin.take().context("ip has no standard input")?;
    // A thread of its own: ip may complain before it has read everything.
    let writer = thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().context("wait for ip")?;
    let written = writer.join().is_ok_and(|written| written.is_ok());
    if !output.status.success() || !written {
        bail!("ip -batch failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Waits until `done` says so.
pub fn wait_until(what: &str, limit: Duration, pause: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !done()? {
        if Instant::now() > deadline {
            bail!("{what}: not within {limit:?}");
        }
        thread::sleep(pause);
    }
    Ok(())
}

/// How long a program may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that runs beside, and is ended with this.
pub struct Running {
    child: Child,
    ended: bool,
}

impl Running {
    /// Starts it.
    pub fn start(command: &mut Command) -> Result<Self> {
        // Its helpers (trace-cmd has one a processor) are in its group, and end with it.
        let child =
            command.process_group(0).spawn().with_context(|| format!("start {}", command.get_program().display()))?;
        Ok(Self { child, ended: false })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output, if it is a pipe.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Fails if it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait().context("look after a program")? {
            Some(status) => bail!("it has ended by itself: {status}"),
            None => Ok(()),
        }
    }

    /// Asks it to end and waits for that; how long it took.
    pub fn stop(mut self) -> Result<Duration> {
        self.ended = true;
        let begun = Instant::now();
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("a process id")?);
        kill(pid, Signal::SIGINT).context("interrupt a program")?;
        while self.child.try_wait().context("wait for a program")?.is_none() {
            if begun.elapsed() > PATIENCE {
                // It does not matter whether it ended just now.
                let _ = self.child.kill();
                let _ = self.child.wait();
                bail!("process {pid} did not end on SIGINT within {PATIENCE:?}");
            }
            thread::sleep(Duration::from_micros(200));
        }
        let elapsed = begun.elapsed();
        self.end_group();
        Ok(elapsed)
    }

    fn end_group(&self) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // Mostly nobody is left.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            // It may have ended by itself.
            let _ = self.child.kill();
            self.end_group();
            let _ = self.child.wait();
        }
    }
}

/// Processor time that a process and its children have used so far.
pub fn cpu_time(pid: u32) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let of_task = |task: &Path| {
        let nanoseconds = fs::read_to_string(task.join("schedstat")).ok();
        let nanoseconds = nanoseconds.and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0);
        let children = fs::read_to_string(task.join("children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|child| child.parse().ok());
        Duration::from_nanos(nanoseconds) + children.map(cpu_time).sum::<Duration>()
    };
    tasks.filter_map(|task| Some(of_task(&task.ok()?.path()))).sum()
}

/// A number of kB in `/proc/PID/status`, in MiB.
pub fn memory_mib(pid: u32, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}
