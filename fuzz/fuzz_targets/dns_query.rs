//! A DNS message of a sandbox.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| warren_egress::check_query_input(data));
