//! iproute2, in batches: a process start costs 0.3 s in an emulated guest.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Runs a list of `ip` commands, on a namespace or, without one, on the host (only to make and remove namespaces, and
/// links inside them).
///
/// # Errors
///
/// The line that was refused, with iproute2's message; without its keys if it holds any.
pub fn batch(namespace: Option<&str>, lines: &[String]) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    let mut child = command
        .args(["-b", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("run ip")?;
    let mut stdin = child.stdin.take().context("ip has no standard input")?;
    // An `ip` that stopped reading says why on standard error.
    let _ = stdin.write_all((lines.join("\n") + "\n").as_bytes());
    drop(stdin);
    let output = child.wait_with_output().context("wait for ip")?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let failed = stderr.lines().find_map(|line| line.strip_prefix("Command failed -:")?.parse::<usize>().ok());
    let line = failed.and_then(|number| lines.get(number.checked_sub(1)?)).map_or("?", String::as_str);
    match line.split_once(" enc ").or_else(|| line.split_once(" auth-trunc ")) {
        Some((open, _)) => {
            let open = open.split(" auth-trunc ").next().unwrap_or_default();
            bail!("ip {open} (keys hidden): refused")
        }
        None => bail!("ip {line}: {}", stderr.lines().next().unwrap_or("refused")),
    }
}

/// What one `ip` command prints.
///
/// # Panics
///
/// If it fails: the scene is not what the test takes it for.
pub fn text(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("ip could not be run");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("ip's output is not UTF-8")
}

/// What one `ip -j` command says.
///
/// # Panics
///
/// If it fails or says no JSON.
pub fn json(arguments: &[&str]) -> serde_json::Value {
    let text = text(&[&["-j"], arguments].concat());
    serde_json::from_str(&text).expect("ip's output is not JSON")
}

/// What `ip route get` says to a question in its own words (`10.0.0.1 from 10.0.0.2 mark 1`), a refusal included.
///
/// # Panics
///
/// If `ip` cannot be run.
pub fn decision(namespace: &str, question: &str) -> String {
    let output = Command::new("ip").args(["-n", namespace, "route", "get"]).args(question.split(' ')).output();
    let output = output.expect("ip could not be run");
    let said = if output.status.success() { output.stdout } else { output.stderr };
    String::from_utf8_lossy(&said).trim().to_owned()
}

/// What `ip route get` says to many questions, in one batch: the answers, then the refusals with their line numbers.
///
/// # Panics
///
/// If `ip` cannot be run.
pub fn decisions(namespace: &str, questions: &[String]) -> String {
    let lines: String = questions.iter().map(|question| format!("route get {question}\n")).collect();
    let command = Command::new("ip")
        .args(["-n", namespace, "-force", "-b", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = command.expect("ip could not be run");
    let mut stdin = child.stdin.take().expect("ip has no standard input");
    stdin.write_all(lines.as_bytes()).expect("ip stopped reading");
    drop(stdin);
    let output = child.wait_with_output().expect("ip could not be waited for");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// IPv4's rules of a namespace as `ip rule` prints them, without vpnfix's protocol number.
///
/// # Panics
///
/// If `ip` cannot be run.
pub fn rules_v4(namespace: &str) -> Vec<String> {
    let text = text(&["-4", "-n", namespace, "rule"]);
    text.lines().map(|line| line.trim_end().replace(" proto 118", "")).collect()
}
