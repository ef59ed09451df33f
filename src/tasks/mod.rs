//! The kinds, one file each, all of the same shape: the table as written, what it reads, what it
//! becomes, and doing that. This is the one place that knows all of them.

pub mod names;
