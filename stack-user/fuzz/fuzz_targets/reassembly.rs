#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xstack_fuzz::reassembly::run(data));
