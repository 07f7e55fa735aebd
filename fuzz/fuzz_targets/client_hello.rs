//! First bytes of a TLS connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| warren_egress::check_hello_input(data));
