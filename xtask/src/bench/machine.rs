//! On what it was measured. Figures of two machines, or of two kernels on one, are not compared.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::build::cargo;
use crate::process::capture;

/// What makes a difference and can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) processor: String,
    pub(super) cores: usize,
    /// Whether it is a guest, whose cores somebody else may have at times.
    pub(super) is_virtual: bool,
    pub(super) memory_bytes: u64,
    pub(super) kernel: String,
    /// Of the first core; none where the kernel has no say.
    pub(super) governor: Option<String>,
    /// Flaws of the processor that the kernel works around.
    pub(super) mitigated: Vec<String>,
    pub(super) rustc: String,
}

impl Machine {
    /// Reads it. What can't be read is left empty.
    pub(super) fn here() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        Self {
            processor: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            is_virtual: field(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor")),
            memory_bytes: field(&read("/proc/meminfo"), "MemTotal").and_then(kilobytes).unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            governor: Some(read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").trim().to_owned())
                .filter(|governor| !governor.is_empty()),
            mitigated: mitigated(),
            rustc: rustc(),
        }
    }

    /// In a line.
    pub(super) fn told(&self) -> String {
        let kind = if self.is_virtual { ", virtual" } else { "" };
        let governor = match &self.governor {
            Some(governor) => format!("governor {governor}"),
            None => "no governor of its own".to_owned(),
        };
        let mitigated = match &self.mitigated[..] {
            [] => "no mitigations".to_owned(),
            flaws => format!("mitigations for {}", flaws.join(", ")),
        };
        format!(
            "{} ({} cores{kind}), {:.1} GB, Linux {}, {governor}, {mitigated}, {}",
            self.processor,
            self.cores,
            self.memory_bytes as f64 / 1e9,
            self.kernel,
            self.rustc
        )
    }
}

/// How many programs wanted to run, on average over the last minute.
pub(super) fn load() -> f64 {
    read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first `name : value` line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(found, _)| found.trim() == name).map(|(_, value)| value.trim())
}

fn kilobytes(value: &str) -> Option<u64> {
    value.trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

fn mitigated() -> Vec<String> {
    let entries = fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten().flatten();
    let mitigated = entries
        .filter(|entry| fs::read_to_string(entry.path()).is_ok_and(|state| state.starts_with("Mitigation")));
    let mut names: Vec<_> = mitigated.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The compiler that cargo has: as a sibling of it, if a toolchain has both.
fn rustc() -> String {
    let cargo = cargo();
    let sibling = std::path::Path::new(cargo.get_program()).with_file_name("rustc");
    let program = std::env::var_os("RUSTC")
        .unwrap_or_else(|| if sibling.is_file() { sibling.into() } else { "rustc".into() });
    capture(Command::new(program).arg("--version")).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_processor_memory_and_a_kernel() {
        let machine = Machine::here();
        assert!(
            machine.cores > 0 && machine.memory_bytes > 1 << 20 && !machine.kernel.is_empty(),
            "{machine:?}"
        );
        assert!(machine.rustc.starts_with("rustc "), "{machine:?}");
        assert!(machine.told().contains(&machine.kernel));
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 85\nmodel name\t: A: B\nflags: x hypervisor\n";
        assert_eq!(field(text, "model name"), Some("A: B"));
        assert_eq!(field(text, "cores"), None);
        assert_eq!(kilobytes("16 kB"), Some(16384));
    }
}
