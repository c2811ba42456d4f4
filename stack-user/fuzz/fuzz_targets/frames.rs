#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xstack_fuzz::frames::run(data));
