//! Whole connections on virtual time. Each test names the rule that it holds us to.

mod close;
mod handshake;
mod loss;
mod robustness;
mod transfer;
mod window;
