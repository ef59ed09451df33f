//! Any bytes as a patch for any files: `cargo +nightly fuzz run patch`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| vcbuild::fuzzing::patch(input));
