//! The only code that starts processes, opens sockets or writes outside the cache. Knows no task.
//!
//! `process` runs a command: it starts `launch` (this program again, under a hidden verb), which stays
//! above the command and ends everything below it. `wire` is what the two say to each other, `below`
//! finds and signals processes, `stop` carries the wish to stop to whoever waits.

mod below;
pub mod launch;
pub mod process;
#[cfg(test)]
mod process_tests;
pub mod stop;
mod wire;
