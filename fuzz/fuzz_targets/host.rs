//! Host and routing headers of a request: `host NUL id NUL port`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| warren_proxy::check_host_input(data));
