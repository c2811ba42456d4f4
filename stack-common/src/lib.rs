//! What both sides of the kernel line read, and nothing else.
#![no_std]
#![forbid(unsafe_code)]
