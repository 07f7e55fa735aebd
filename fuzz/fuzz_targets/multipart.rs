//! Multipart bodies, cut into pieces.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| warren_envd::check_multipart_input(data));
