//! The programs that run in the machines, built here: a machine sees this host's files.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{jobs, system};
use crate::{
    process::{self, cargo},
    test,
};

/// What was built for the machines.
pub struct Programs {
    /// The path of vpnfix itself.
    pub vpnfix: String,
    /// Each integration test of vpnfix and of its scenes, by name.
    pub scenes: Vec<Scene>,
    /// The Debian root with the VPN's daemons.
    pub vpn_root: String,
}

/// A compiled integration test.
pub struct Scene {
    /// Its name in the manifest.
    pub name: String,
    /// Its program.
    pub path: String,
}

/// The part that matters of a line that cargo prints (`cargo build --message-format=json`, The Cargo Book, "External
/// tools").
#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    executable: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// Builds vpnfix and every test that needs a kernel; the daemons of the VPN's scenes are fetched.
pub fn build() -> Result<Programs> {
    let binaries = executables(&mut test::build_binary(), "bin")?;
    let vpnfix = binaries.into_iter().find(|binary| binary.name == "vpnfix").context("cargo built no vpnfix")?.path;
    let mut scenes = executables(cargo().args(["test", "--no-run"]).args(test::KERNEL_TESTS), "test")?;
    scenes.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = scenes.windows(2).find(|pair| pair[0].name == pair[1].name) {
        bail!("two integration tests are named `{}`: their results would overwrite each other", pair[0].name);
    }
    let vpn_root = system::provide(&system::VPN)?.to_string_lossy().into_owned();
    Ok(Programs { vpnfix, scenes, vpn_root })
}

/// Builds the golden hosts' test, which records them too, and gives its program's path.
pub fn recorder() -> Result<String> {
    let built = executables(cargo().args(["test", "--no-run", "--package", "vpnfix", "--test", jobs::GOLDEN]), "test")?;
    built.into_iter().next().map(|scene| scene.path).context("cargo built no golden test")
}

/// Runs cargo and gives the executables of the kind that it names.
fn executables(command: &mut std::process::Command, kind: &str) -> Result<Vec<Scene>> {
    let command = command.args(["--quiet", "--message-format=json-render-diagnostics"]).stderr(Stdio::inherit());
    let printed = process::output(command)?;
    parse(&printed, kind)
}

fn parse(printed: &str, kind: &str) -> Result<Vec<Scene>> {
    let mut found = Vec::new();
    for line in printed.lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line).context("read cargo's messages")?;
        if let (Some(target), Some(path)) = (message.target, message.executable)
            && message.reason == "compiler-artifact"
            && target.kind.iter().any(|of| of == kind)
        {
            found.push(Scene { name: target.name, path });
        }
    }
    if found.is_empty() {
        bail!("cargo built nothing of the kind `{kind}`");
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_executables_of_the_kind_asked_for_are_taken() {
        let printed = concat!(
            "   a line that is no message\n",
            r#"{"reason":"compiler-artifact","target":{"name":"vpnfix","kind":["lib"]},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"vpnfix","kind":["bin"]},"executable":"/t/vpnfix"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"hijack","kind":["test"]},"executable":"/t/hijack-1"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let scenes = parse(printed, "test").unwrap();
        assert_eq!(scenes.len(), 1);
        assert_eq!((scenes[0].name.as_str(), scenes[0].path.as_str()), ("hijack", "/t/hijack-1"));
        assert!(parse(printed, "bench").is_err());
    }
}
