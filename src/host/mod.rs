//! The outside world: only these files start processes, open sockets or write outside memory. They
//! know paths, bytes and stamps, but no task, no configuration, and nothing of OCI.
#![expect(clippy::disallowed_methods, reason = "this is the place where the outside world is touched")]

pub mod fs;
