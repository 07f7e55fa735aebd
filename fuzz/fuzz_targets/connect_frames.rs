//! Connect frames, cut into pieces.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| warren_connect::check_frames_input(data));
