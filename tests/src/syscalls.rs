//! Running a program and stopping it at its system calls: to end it there, or to let one fail.
//!
//! The program is the one that users get: a seccomp filter makes the kernel stop it (ptrace(2), `SECCOMP_RET_TRACE`) before
//! each call that leaves a trace outside of the process, and before what reads netlink's answers.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::ptrace::{self, AddressType, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::command::Run;

/// Message types of rtnetlink (`include/uapi/linux/rtnetlink.h`).
pub const RTM_NEWRULE: u16 = 32;
/// Deletes a rule.
pub const RTM_DELRULE: u16 = 33;

/// A system call that the program is about to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Sends a netlink request of this type.
    Request(u16),
    /// Receives.
    Receive,
    /// Writes.
    Write,
    /// Syncs a file or a directory.
    Sync,
    /// Renames a file.
    Rename,
    /// Deletes a file.
    Unlink,
    /// Sends something else.
    Send,
}

/// What is to become of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is made.
    Made,
    /// The program is killed before it.
    Killed,
    /// A netlink request is refused by an error message, and not done.
    Refused(Errno),
    /// A netlink request is done, and reading its answer fails (`EAGAIN`: it seems not to have come).
    Unanswered(Errno),
}

/// What came of it.
pub struct Traced {
    /// The run; its status is `None` where it was killed.
    pub run: Run,
    /// The calls that were stopped at.
    pub calls: Vec<Call>,
}

/// Runs a prepared command to its end; `judge` decides on each call, by its number and what it is.
///
/// # Panics
///
/// If the program cannot be traced.
#[allow(clippy::zombie_processes, reason = "it is waited for by its number, among its threads")]
pub fn run(mut command: Command, arguments: &[&str], mut judge: impl FnMut(usize, Call) -> Fate) -> Traced {
    // SAFETY: only system calls are made between fork and exec; `filter` allocates nothing.
    unsafe { command.pre_exec(|| filter().and_then(|()| ptrace::traceme().map_err(Into::into))) };
    let mut child = command.spawn().expect("vpnfix could not be started");
    let leader = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    let (mut stdout, mut stderr) = (child.stdout.take().expect("stdout"), child.stderr.take().expect("stderr"));
    assert!(matches!(waitpid(leader, None), Ok(WaitStatus::Stopped(_, Signal::SIGTRAP))), "no stop at exec");
    let options = Options::PTRACE_O_TRACESECCOMP
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(leader, options).expect("options");
    let mut tracer = Tracer { leader, calls: Vec::new(), awaited: None };
    let _ = ptrace::cont(leader, None);
    let status = loop {
        // Only of this thread's: other tests of the program wait for theirs.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        match waitpid(Pid::from_raw(-1), Some(flags)).expect("the program is gone") {
            WaitStatus::Exited(pid, status) if pid == leader => break Some(status),
            WaitStatus::Signaled(pid, _, _) if pid == leader => break None,
            stopped => tracer.go_on(stopped, &mut judge),
        }
    };
    let mut text = [String::new(), String::new()];
    stdout.read_to_string(&mut text[0]).expect("stdout");
    stderr.read_to_string(&mut text[1]).expect("stderr");
    let [stdout, stderr] = text;
    let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
    Traced { run: Run { arguments, status, stdout, stderr }, calls: tracer.calls }
}

struct Tracer {
    leader: Pid,
    calls: Vec<Call>,
    /// The answer that is to be changed or lost: of this thread, on this descriptor.
    awaited: Option<(Pid, u64, Fate)>,
}

impl Tracer {
    /// Lets a stopped thread go on. A thread that was killed meanwhile is not there to be asked, which is no error.
    fn go_on(&mut self, stopped: WaitStatus, judge: &mut impl FnMut(usize, Call) -> Fate) {
        let _ = match stopped {
            WaitStatus::PtraceEvent(pid, _, event) if event == libc::PTRACE_EVENT_SECCOMP => self.at_call(pid, judge),
            WaitStatus::PtraceSyscall(pid) => self.at_answer(pid),
            WaitStatus::PtraceEvent(pid, _, _) => ptrace::cont(pid, None),
            // The first stop of a new thread, and our own.
            WaitStatus::Stopped(pid, Signal::SIGSTOP | Signal::SIGTRAP) => ptrace::cont(pid, None),
            WaitStatus::Stopped(pid, signal) => ptrace::cont(pid, signal),
            _ => Ok(()),
        };
    }

    fn at_call(&mut self, pid: Pid, judge: &mut impl FnMut(usize, Call) -> Fate) -> nix::Result<()> {
        let registers = ptrace::getregs(pid)?;
        if let Some((thread, descriptor, fate)) = self.awaited
            && (thread, descriptor) == (pid, registers.rdi)
            && registers.orig_rax == libc::SYS_recvfrom as u64
        {
            if let Fate::Unanswered(errno) = fate {
                self.awaited = None;
                return skip(pid, registers, errno);
            }
            return ptrace::syscall(pid, None);
        }
        let call = call(pid, &registers)?;
        self.calls.push(call);
        match judge(self.calls.len() - 1, call) {
            Fate::Killed => {
                let _ = kill(self.leader, Signal::SIGKILL);
                return Ok(());
            }
            Fate::Made => {}
            fate => {
                self.awaited = Some((pid, registers.rdi, fate));
                if matches!(fate, Fate::Refused(_)) {
                    withdraw(pid, registers.rsi)?;
                }
            }
        }
        ptrace::cont(pid, None)
    }

    /// The acknowledgement of a request that was withdrawn lies in the reader's buffer: it becomes a refusal.
    fn at_answer(&mut self, pid: Pid) -> nix::Result<()> {
        let registers = ptrace::getregs(pid)?;
        if let Some((thread, _, Fate::Refused(errno))) = self.awaited
            && thread == pid
            && registers.rax.cast_signed() > 0
        {
            self.awaited = None;
            change(pid, registers.rsi + ERROR_AT, |word| {
                (word & !0xffff_ffff) | u64::from((-(errno as i32)).cast_unsigned())
            })?;
        }
        ptrace::cont(pid, None)
    }
}

/// Where `struct nlmsgerr` has its error, behind the header.
const ERROR_AT: u64 = 16;
const NLMSG_NOOP: u64 = 1;
const NLM_F_ACK: u64 = 4;

/// Makes a request one for nothing but its acknowledgement (`netlink_rcv_skb`).
fn withdraw(pid: Pid, message: u64) -> nix::Result<()> {
    // Length, type and flags are the first eight bytes.
    change(pid, message, |word| (word & 0xffff_0000_ffff_ffff) | (NLMSG_NOOP << 32) | (NLM_F_ACK << 48))
}

/// Lets the call fail without being made (seccomp(2): the number -1 skips it, and the result is what stands in `rax`).
fn skip(pid: Pid, mut registers: libc::user_regs_struct, errno: Errno) -> nix::Result<()> {
    registers.orig_rax = u64::MAX;
    registers.rax = (-i64::from(errno as i32)).cast_unsigned();
    ptrace::setregs(pid, registers)?;
    ptrace::cont(pid, None)
}

fn read(pid: Pid, address: u64) -> nix::Result<u64> {
    ptrace::read(pid, address as AddressType).map(i64::cast_unsigned)
}

fn change(pid: Pid, address: u64, change: impl FnOnce(u64) -> u64) -> nix::Result<()> {
    let word = change(read(pid, address)?);
    ptrace::write(pid, address as AddressType, word.cast_signed())
}

fn call(pid: Pid, registers: &libc::user_regs_struct) -> nix::Result<Call> {
    Ok(match registers.orig_rax.cast_signed() {
        libc::SYS_sendto if registers.rdx >= ERROR_AT => {
            let word = read(pid, registers.rsi)?;
            // A netlink message says its own length.
            if word & 0xffff_ffff == registers.rdx { Call::Request(((word >> 32) & 0xffff) as u16) } else { Call::Send }
        }
        libc::SYS_recvfrom => Call::Receive,
        libc::SYS_fsync | libc::SYS_fdatasync => Call::Sync,
        libc::SYS_rename | libc::SYS_renameat | libc::SYS_renameat2 => Call::Rename,
        libc::SYS_unlink | libc::SYS_unlinkat => Call::Unlink,
        libc::SYS_sendto => Call::Send,
        _ => Call::Write,
    })
}

const STOPPED_AT: [i64; 11] = [
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_write,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_ftruncate,
];

/// Stops the calling process, from its next call on, before the calls of [`STOPPED_AT`].
fn filter() -> std::io::Result<()> {
    const LOAD_NUMBER: libc::sock_filter = libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 };
    const RETURN: u16 = 0x06;
    const JUMP_IF_EQUAL: u16 = 0x15;
    let mut program = [LOAD_NUMBER; STOPPED_AT.len() + 3];
    for (index, number) in STOPPED_AT.iter().enumerate() {
        // Over the calls behind it and the "allow", to the "trace".
        let jump = (STOPPED_AT.len() - index) as u8;
        program[index + 1] = libc::sock_filter { code: JUMP_IF_EQUAL, jt: jump, jf: 0, k: *number as u32 };
    }
    let end = STOPPED_AT.len() + 1;
    program[end] = libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    program[end + 1] = libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_TRACE };
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives until the call is over.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    Errno::result(done).map(drop).map_err(Into::into)
}
