//! First bytes of an HTTP connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| warren_egress::check_head_input(data));
