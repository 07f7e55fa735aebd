//! Path of a request for the agent.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| warren_proxy::check_path_input(data));
