//! The processes that answer on TCP 179 in the AWS namespaces, so that the port of BGP is really connected to.
//!
//! A responder is this binary, started detached with a hidden subcommand. It accepts connections and keeps them, speaks
//! no BGP, and ends by itself when the name of its namespace is gone.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};

use super::layout::{BGP_PORT, HOSTS, Host, Names};
use super::netns;
use super::state::LabState;

/// What a responder writes to its standard output when it listens; anything else is why it does not.
const READY: &str = "ready";
/// Connections kept; the oldest go first. The lab's own traffic needs a few.
const CONNECTIONS_MAX: usize = 256;
/// How often a responder looks whether its namespace still has its name.
const LOOK_EVERY_MS: u16 = 500;
/// How long a responder may take to end when asked to.
const END_WITHIN: Duration = Duration::from_secs(3);

const fn has_responder(host: Host) -> bool {
    matches!(host, Host::Aws1 | Host::Aws2)
}

/// Starts the responders of both AWS namespaces and waits until they listen.
pub fn start_all(names: &Names) -> anyhow::Result<()> {
    for host in HOSTS.into_iter().filter(|host| has_responder(*host)) {
        start(names, host).with_context(|| format!("start the answerer on TCP 179 in {}", names.of(host)))?;
    }
    Ok(())
}

fn start(names: &Names, host: Host) -> anyhow::Result<()> {
    // Standard error is not inherited: whoever reads this command's would otherwise wait for the responder's end.
    let mut child = Command::new("/proc/self/exe")
        .arg0("vpnfix")
        .args(["lab", "responder", "--prefix", names.prefix(), "--ns", &names.of(host)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("run this program again")?;
    let Some(stdout) = child.stdout.take() else { bail!("its standard output is not a pipe") };
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).context("wait until it listens")?;
    match line.trim() {
        READY => Ok(()),
        "" => bail!("it ended at once: {}", child.wait().context("wait for it")?),
        why => bail!("{why}"),
    }
}

/// Whether both responders run.
pub fn all_alive(names: &Names) -> bool {
    HOSTS.into_iter().filter(|host| has_responder(*host)).all(|host| running(names, host).is_some())
}

/// Ends the responders and waits for their end. A pid file whose process is not our responder (the number was given out
/// again) is left at that.
pub fn stop_all(names: &Names) -> anyhow::Result<()> {
    for host in HOSTS.into_iter().filter(|host| has_responder(*host)) {
        let deadline = Instant::now() + END_WITHIN;
        let mut signal = Signal::SIGTERM;
        while let Some(pid) = running(names, host) {
            match kill(pid, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno).with_context(|| format!("end process {pid}")),
            }
            let now = Instant::now();
            if now > deadline + END_WITHIN {
                bail!("process {pid} does not end");
            }
            if now > deadline {
                signal = Signal::SIGKILL;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// The responder of a host, if the process in its pid file is really one.
fn running(names: &Names, host: Host) -> Option<Pid> {
    let text = fs::read_to_string(LabState::pid_file(names, host)).ok()?;
    let pid = text.trim().parse::<i32>().ok().filter(|pid| *pid > 1)?;
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    is_responder(&command_line, names.prefix(), &names.of(host)).then_some(Pid::from_raw(pid))
}

/// Whether a `/proc/PID/cmdline` is that of the namespace's responder. A dead, unreaped process has an empty one.
fn is_responder(command_line: &[u8], prefix: &str, namespace: &str) -> bool {
    let arguments: Vec<&[u8]> = command_line.split(|byte| *byte == 0).skip(1).filter(|part| !part.is_empty()).collect();
    arguments == ["lab", "responder", "--prefix", prefix, "--ns", namespace].map(str::as_bytes)
}

/// The responder itself: listens in the namespace until the namespace's name is gone.
pub fn serve(names: &Names, namespace: &str) -> anyhow::Result<()> {
    match prepare(names, namespace) {
        Ok((listener, path, inode)) => {
            let mut stdout = io::stdout().lock();
            writeln!(stdout, "{READY}").and_then(|()| stdout.flush()).context("say that it listens")?;
            answer(&listener, &path, inode)
        }
        Err(error) => {
            // The starter reads this line; if it is gone, nobody is left to tell.
            let _ = writeln!(io::stdout().lock(), "{error:#}");
            Err(error)
        }
    }
}

fn prepare(names: &Names, namespace: &str) -> anyhow::Result<(TcpListener, PathBuf, u64)> {
    let host = HOSTS.into_iter().find(|host| has_responder(*host) && names.of(*host) == namespace);
    let Some(host) = host else { bail!("{namespace} is no AWS namespace of the lab") };
    // Outlive the terminal that the lab was built on. It fails only for a leader of a process group, who needs it not.
    let _ = setsid();
    let path = names.path(host);
    let inode = File::open(&path).and_then(|file| file.metadata()).context("open the namespace")?.ino();
    netns::enter(&path)?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, BGP_PORT)).context("listen on TCP 179")?;
    listener.set_nonblocking(true).context("listen on TCP 179")?;
    let pid_file = LabState::pid_file(names, host);
    fs::write(&pid_file, format!("{}\n", std::process::id()))
        .with_context(|| format!("write {}", pid_file.display()))?;
    Ok((listener, path, inode))
}

fn answer(listener: &TcpListener, namespace: &Path, inode: u64) -> anyhow::Result<()> {
    let mut connections: Vec<TcpStream> = Vec::new();
    while fs::metadata(namespace).is_ok_and(|now| now.ino() == inode) {
        let mut waiting = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        waiting.extend(connections.iter().map(|connection| PollFd::new(connection.as_fd(), PollFlags::POLLIN)));
        match poll(&mut waiting, LOOK_EVERY_MS) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("wait for connections"),
        }
        connections.retain_mut(still_open);
        while let Ok((connection, _)) = listener.accept() {
            if connection.set_nonblocking(true).is_ok() {
                connections.push(connection);
            }
        }
        let surplus = connections.len().saturating_sub(CONNECTIONS_MAX);
        connections.drain(..surplus);
    }
    Ok(())
}

/// Reads away what came, and tells whether the other side still holds the connection.
fn still_open(connection: &mut TcpStream) -> bool {
    let mut heap = [0u8; 4096];
    loop {
        match connection.read(&mut heap) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_responder;

    #[test]
    fn only_the_namespaces_own_responder_is_taken_for_one() {
        let own = b"/proc/self/exe\0lab\0responder\0--prefix\0p\0--ns\0p-aws1\0";
        assert!(is_responder(own, "p", "p-aws1"));
        assert!(!is_responder(own, "p", "p-aws2"));
        assert!(!is_responder(b"", "p", "p-aws1"));
        assert!(!is_responder(b"vim\0lab responder --prefix p --ns p-aws1\0", "p", "p-aws1"));
    }
}
