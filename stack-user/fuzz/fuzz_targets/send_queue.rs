#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xstack_fuzz::send_queue::run(data));
