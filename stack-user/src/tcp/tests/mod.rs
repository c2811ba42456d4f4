//! Whole connections on virtual time. Each test names the rule that it holds us to.

mod close;
mod fuzz;
mod handshake;
mod loss;
mod robustness;
mod transfer;
mod window;

/// Names the seed when an assertion fails, wherever it is.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to replay: seed {}", self.0);
        }
    }
}
