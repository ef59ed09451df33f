//! The exit code of `cli::run`, nothing else.

fn main() {}
