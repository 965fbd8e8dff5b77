//! A shell script that adds rules, for those who run commands.

use std::fmt::Write as _;

use super::heading;
use crate::core::model::Rule;

/// Where the script of systemd's unit lies.
pub const SCRIPT: &str = "/etc/vpnfix/persisted-rules";

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
