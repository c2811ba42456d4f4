//! The filter of system calls, compiled and installed in every thread.
//!
//! What is not let through fails with EPERM, and the process goes on. Killing it would be the stricter choice, and the
//! one of OpenSSH for a process that does one thing; but here a C library, a resolver and a runtime are below us, whose
//! next version may try a call that is new and fall back to the one that it used before. A server that such an attempt
//! kills is of no use to anybody, and a call that is refused does as little harm as one that is never made. It is also
//! what administrators know from containers and from systemd's `SystemCallErrorNumber=`.
//!
//! How to find a call that is missing here: docs/privileges.md.

use std::{collections::BTreeMap, fmt};

use clap::ValueEnum;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};
use serde::Deserialize;

use super::calls::{Call, Is, Profile, WITHOUT_FLAGS};

/// What happens to a system call that the command has no use for: `--seccomp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// It fails with EPERM
    #[default]
    Enforce,
    /// It is done, and named in the kernel's log: to find out what a filter lacks
    Log,
    /// There is no filter
    Off,
}

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Not one that the kernel could run.
    #[error("{0}")]
    Compile(#[from] BackendError),
    /// Not one that this kernel has run.
    #[error(
        "{0}; in a unit of systemd, SystemCallFilter= must let `seccomp` through; on a kernel without \
         CONFIG_SECCOMP_FILTER, --seccomp off goes without"
    )]
    Install(seccompiler::Error),
}

impl Filter {
    /// Filters the calls of all threads, those that there are and those to come, for as long as the process lives.
    ///
    /// # Errors
    /// On kernels without seccomp, or when a thread has a filter that the calling one has not.
    pub fn install(self, profile: Profile) -> Result<(), FilterError> {
        let otherwise = match self {
            Self::Enforce => SeccompAction::Errno(libc::EPERM as u32),
            Self::Log => SeccompAction::Log,
            Self::Off => return Ok(()),
        };
        // How these make a thread is in memory, where no filter sees it. Without them, the C library uses a call whose flags
        // can be seen; but to it this has to look like a kernel that is too old. Of two filters that both refuse, the
        // later one names the error, hence the other lets these pass.
        let absent = SeccompAction::Errno(libc::ENOSYS as u32);
        let hidden = WITHOUT_FLAGS.map(|number| Call { number, only: Vec::new() });
        let allowed = compile(rules(profile.calls().chain(hidden))?, otherwise, SeccompAction::Allow)?;
        let hidden = WITHOUT_FLAGS.iter().map(|&number| (number, Vec::new())).collect();
        let hidden = compile(hidden, SeccompAction::Allow, absent)?;
        for filter in [hidden, allowed] {
            apply_filter_all_threads(&filter).map_err(FilterError::Install)?;
        }
        Ok(())
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let machine = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, otherwise, matching, machine)?.try_into()
}

/// A call that is listed more than once may be made in either way.
fn rules(calls: impl Iterator<Item = Call>) -> Result<Rules, BackendError> {
    let mut ways: BTreeMap<i64, Option<Vec<SeccompRule>>> = BTreeMap::new();
    for Call { number, only } in calls {
        let known = ways.entry(number).or_insert_with(|| Some(Vec::new()));
        match known {
            _ if only.is_empty() => *known = None,
            Some(ways) => {
                let conditions = only.iter().map(condition).collect::<Result<_, _>>()?;
                ways.push(SeccompRule::new(conditions)?);
            }
            None => {}
        }
    }
    Ok(ways.into_iter().map(|(number, ways)| (number, ways.unwrap_or_default())).collect())
}

fn condition(is: &Is) -> Result<SeccompCondition, BackendError> {
    let Is { argument, mask, value } = *is;
    // An int is compared as an int: what is in the upper half of its register is not defined.
    let len = if mask > u64::from(u32::MAX) { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
    SeccompCondition::new(argument, len, SeccompCmpOp::MaskedEq(mask), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_a_program_that_the_kernel_takes() {
        for profile in Profile::ALL.into_iter().chain([Profile::Guard]) {
            let compiled = compile(
                rules(profile.calls()).expect("rules"),
                SeccompAction::KillProcess,
                SeccompAction::Allow,
            );
            let length = compiled.expect("compiles").len();
            // BPF_MAXINSNS
            assert!((20..4096).contains(&length), "{profile:?} has {length} instructions");
        }
    }

    #[test]
    fn a_call_may_be_made_in_each_way_that_is_listed_and_in_any_if_that_is() {
        let way = |value| Call { number: 1, only: vec![Is { argument: 0, mask: 0xff, value }] };
        let any = Call { number: 1, only: vec![] };
        let count = |calls: Vec<Call>| rules(calls.into_iter()).expect("rules")[&1].len();
        assert_eq!(count(vec![way(1), way(2)]), 2);
        // No condition at all is how seccompiler says `any`.
        assert_eq!(count(vec![way(1), any.clone(), way(2)]), 0);
        assert_eq!(count(vec![any]), 0);
    }
}
