//! A shell script that adds rules, for those who run commands.

use std::fmt::Write as _;

use super::{PersistError, heading};
use crate::core::model::{Rule, RuleAction};
use crate::core::own_file::Backend;

/// Where the script of systemd's unit lies.
pub const SCRIPT: &str = "/etc/vpnfix/persisted-rules";

/// Checks that a rule's `ip` command is the rule, and words of a shell.
///
/// # Errors
/// The rule has what `ip rule add` has no word for, or the name of a device that a shell could take for something else.
pub(super) fn check(rule: &Rule, backend: Backend) -> Result<(), PersistError> {
    let inexpressible = |why: &str| Err(PersistError::inexpressible(backend, rule, why));
    if matches!(rule.action, RuleAction::Nop | RuleAction::Other(_)) || rule.invert || rule.find_source {
        return inexpressible("vpnfix makes no such rules");
    }
    if !rule.unknown_attributes.is_empty() {
        return inexpressible("it has attributes that vpnfix does not know");
    }
    // An interface's name may hold anything but a slash and white space (`dev_valid_name` in net/core/dev.c).
    let is_plain = |name: &&String| name.chars().all(|c| c.is_ascii_alphanumeric() || "._-@:+".contains(c));
    if [&rule.iif, &rule.oif].into_iter().flatten().any(|name| !is_plain(&name)) {
        return inexpressible("the interface's name could be more than a word to a shell");
    }
    Ok(())
}

/// A script that adds these rules and leaves alone what is there. `first` are lines before it does anything, `last` is its
/// end, where `$failed` is 1 if a rule was refused.
pub(super) fn script(rules: &[Rule], first: &str, last: &str) -> String {
    let mut text = format!(
        "#!/bin/sh\n{}{first}PATH=/usr/sbin:/usr/bin:/sbin:/bin\nLC_ALL=C\nexport PATH LC_ALL\nfailed=0\n\n\
         # A rule that is there already is as good, whoever made it.\n\
         add() {{\n\
         \tsaid=$(ip \"$@\" 2>&1) && return\n\
         \tcase $said in\n\
         \t*\"File exists\"*) ;;\n\
         \t*) echo \"vpnfix: ip $*: $said\" >&2; failed=1 ;;\n\
         \tesac\n\
         }}\n\n",
        heading()
    );
    for rule in rules {
        let command = rule.add_command();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "add {}", command.strip_prefix("ip ").unwrap_or(&command));
    }
    let _ = writeln!(text, "\n{last}");
    text
}
