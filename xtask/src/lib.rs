//! The project's own commands, as a library: `cargo xtask` is a thin shell around it, and the end-to-end tests
//! bring up their labs through [`lab`].

pub mod bench;
pub mod build;
pub mod build_ebpf;
pub mod conformance;
pub mod debian;
pub mod fuzz;
pub mod lab;
pub mod paths;
pub mod process;
pub mod progress;
pub mod run;
mod rust_text;
pub mod setup;
pub mod sim;
pub mod test;
pub mod tidy;
pub mod toolchain;
pub mod vm_test;
