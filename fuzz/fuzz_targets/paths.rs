//! Paths that clients name.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| warren_envd::check_path_input(data));
