//! The exit code of `cli::run`, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    let verb = std::env::args_os().nth(1).unwrap_or_default();
    vcbuild::launch(&verb).map_or(ExitCode::SUCCESS, ExitCode::from)
}
