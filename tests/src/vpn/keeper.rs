//! The process that keeps the hosts' root folders and all their processes: when it ends, the kernel ends them with it.

use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::binary;

/// Keeps mounts and processes.
pub struct Keeper {
    child: Child,
    /// Its end ends the keeper as well, should the test be killed.
    stdin: Option<ChildStdin>,
    /// Its number, seen from here.
    pid: u32,
    folder: PathBuf,
}

/// Read by bash as the first process of the namespaces: it reaps what daemons leave, and ends with its standard input.
const SCRIPT: &str = r#"
set -e
root=$1 folder=$2 vpnfix=$3; shift 3
mount -t tmpfs -o mode=755 vpnfix-scene "$folder"
for host in "$@"; do
	mkdir -p "$folder/$host"/{upper,work,root}
	mount -t overlay -o "lowerdir=$root,upperdir=$folder/$host/upper,workdir=$folder/$host/work" scene "$folder/$host/root"
	for part in proc sys dev; do mount --rbind "/$part" "$folder/$host/root/$part"; done
	for part in run tmp; do mount -t tmpfs -o mode=1777 scene "$folder/$host/root/$part"; done
	mkdir "$folder/$host/root/run/frr"
	chown --reference="$root/var/log/frr" "$folder/$host/root/run/frr"
	: > "$folder/$host/root/usr/bin/vpnfix"
	mount --bind "$vpnfix" "$folder/$host/root/usr/bin/vpnfix"
done
read -r pid rest < /proc/self/stat
echo "$pid"
exec > /dev/null
while read -r line; do :; done
"#;

impl Keeper {
    /// Starts it, with a root folder for each host.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start(root: &Path, hosts: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("vpnfix-vpn-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("no folder for the hosts");
        let mut child = Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "--pid",
                "--fork",
                "--kill-child",
                "--",
                "bash",
                "-c",
                SCRIPT,
            ])
            .arg("keeper")
            .args([root, &folder, &binary()])
            .args(hosts)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare could not be started");
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("the keeper says nothing");
        let pid = line.trim().parse().unwrap_or_else(|_| panic!("the hosts' root folders could not be mounted"));
        Self { child, stdin, pid, folder }
    }

    /// Makes a command run in a network namespace and in a host's root folder; `kept` puts what it starts into the process
    /// namespace as well, so that it ends with the keeper. A program with threads of its own cannot be kept.
    ///
    /// # Panics
    ///
    /// If the namespaces are gone.
    pub fn prepare(&self, command: &mut Command, namespace: &str, host: &str, kept: bool) {
        let open = |path: String| File::open(&path).unwrap_or_else(|error| panic!("open {path}: {error}"));
        let network = open(format!("/run/netns/{namespace}"));
        let mounts = open(format!("/proc/{}/ns/mnt", self.pid));
        let processes = open(format!("/proc/{}/ns/pid", self.pid));
        let root = self.folder.join(host).join("root");
        let root = CString::new(root.to_string_lossy().as_bytes()).expect("a path without zeros");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        let enter = move || {
            setns(&network, CloneFlags::CLONE_NEWNET)?;
            if kept {
                setns(&processes, CloneFlags::CLONE_NEWPID)?;
            }
            setns(&mounts, CloneFlags::CLONE_NEWNS)?;
            nix::unistd::chroot(root.as_c_str())?;
            nix::unistd::chdir(c"/")?;
            Ok(())
        };
        // SAFETY: only system calls are made between fork and exec; nothing is allocated.
        unsafe { command.pre_exec(enter) };
    }

    /// Writes a file into a host's layer.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn write(&self, host: &str, path: &str, text: &str) {
        let path = self.seen(host, path);
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    }

    /// A path of a host, as it is seen from here.
    pub fn seen(&self, host: &str, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}/{host}/root{path}", self.pid, self.folder.display()))
    }

    /// Runs a prepared command to its end. What it leaves running may hold its outputs open, so these go through files.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn output(&self, command: &mut Command) -> Output {
        let named = |what: &str| std::env::temp_dir().join(format!("vpnfix-vpn-{}.{what}", std::process::id()));
        let files = [named("out"), named("err")];
        let make = |path: &PathBuf| File::create(path).expect("no file for what a command says");
        let status = command
            .stdout(make(&files[0]))
            .stderr(make(&files[1]))
            .status()
            .unwrap_or_else(|error| panic!("a command of the scene could not be started: {error}"));
        let [stdout, stderr] = files.map(|path| {
            let said = std::fs::read(&path).unwrap_or_default();
            let _gone = std::fs::remove_file(path);
            said
        });
        Output { status, stdout, stderr }
    }

    /// Prints the ends of the daemons' logs, for a test that failed.
    pub fn tell_logs(&self, hosts: &[&str]) {
        for host in hosts {
            for log in ["charon.log", "bgpd.log", "bird.log"] {
                let Ok(text) = std::fs::read_to_string(self.seen(host, &format!("/tmp/{log}"))) else { continue };
                let lines: Vec<&str> = text.lines().collect();
                let end = lines.get(lines.len().saturating_sub(25)..).unwrap_or_default();
                eprintln!("-- {host} {log}\n{}", end.join("\n"));
            }
        }
    }

    /// Ends it and all that it keeps.
    pub fn end(&mut self) {
        self.stdin = None;
        if let Ok(id) = i32::try_from(self.pid) {
            // The first process of the namespace: the kernel ends the others with it.
            let _gone_already = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
        let _ended = self.child.wait();
        let _gone = std::fs::remove_dir(&self.folder);
    }
}
