//! The exit code of `cli::run`, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(vcbuild::cli::run())
}
