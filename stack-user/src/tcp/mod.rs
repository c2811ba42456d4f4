//! Protocol code.
#![forbid(unsafe_code)]
