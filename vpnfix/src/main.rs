//! The command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    vpnfix::commands::main()
}
