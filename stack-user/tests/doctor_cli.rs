//! `xstack doctor` as far as nothing has to be made for it: it reads this machine as it is.

// A helper that unwraps fails its test with a line number.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Command, Output},
};

use clap::CommandFactory;
use serde_json::Value;
use stack_user::cli::{Cli, error::Exit};

const XSTACK: &str = env!("CARGO_BIN_EXE_xstack");

fn doctor(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("doctor").args(arguments).env_remove("NO_COLOR").env_remove("XSTACK_INTERFACE");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What it prints as JSON, with its exit code.
fn json(command: &mut Command) -> (Option<i32>, Value) {
    let output = command.output().unwrap();
    let parsed = serde_json::from_slice(&output.stdout);
    (output.status.code(), parsed.unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr))))
}

#[test]
fn the_help_is_as_it_was_last_seen() {
    let mut command = Cli::command().term_width(100);
    command.build();
    let doctor = command.find_subcommand_mut("doctor").unwrap().clone();
    let help = doctor.term_width(100).render_long_help().to_string();
    let path = format!("{}/tests/doctor_cli/xstack-doctor.help.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, &help).unwrap();
    }
    let seen = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        help == seen,
        "the help has changed; if it should, run this again with UPDATE_SNAPSHOTS=1:\n{help}"
    );
}

#[test]
fn an_interface_that_is_not_there_is_answered_with_those_that_are() {
    let output = doctor(XSTACK, &["xs-none"]).output().unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(i32::from(Exit::Interface.code())), "{error}");
    assert!(error.starts_with("xstack: (45) there is no interface `xs-none` here: "), "{error}");
    assert!(error.contains("lo") && error.lines().count() == 1 && output.stdout.is_empty(), "{error}");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for arguments in [&["--dry-run"][..], &["--all", "lo"], &["--fix=some"]] {
        let output = doctor(XSTACK, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn the_loopback_is_a_problem_and_the_exit_code_says_so() {
    let output = doctor(XSTACK, &["--no-self-test", "lo"]).output().unwrap();
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(i32::from(Exit::Problems.code())), "{told}");
    assert!(told.contains("\nlo\n") && told.contains("  problem  lo is the loopback\n"), "{told}");
    assert!(!told.contains('\x1b'), "no colours where nobody looks: {told}");
}

/// The fields of an object, nested ones with their path, all of them.
fn fields(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = format!("{path}.{name}");
                into.insert(path.clone());
                fields(value, &path, into);
            }
        }
        Value::Array(all) => all.iter().for_each(|value| fields(value, &format!("{path}[]"), into)),
        _ => {}
    }
}

/// Scripts read it: a field that goes breaks them.
#[test]
fn the_json_has_the_fields_that_the_docs_list() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/doctor.md");
    let docs = fs::read_to_string(docs).unwrap();
    let documented: BTreeSet<String> = docs
        .lines()
        .filter_map(|line| line.strip_prefix("| `.")?.split('`').next())
        .map(|path| format!(".{path}"))
        .collect();
    let (_, report) = json(&mut doctor(XSTACK, &["--json", "--all", "--no-self-test", "--fix", "--dry-run"]));
    let mut seen = BTreeSet::new();
    fields(&report, "", &mut seen);
    let undocumented: Vec<_> = seen.difference(&documented).collect();
    assert!(undocumented.is_empty(), "docs/doctor.md does not list {undocumented:#?}");
    for field in [
        ".schema",
        ".severity",
        ".host.kernel",
        ".capabilities.root",
        ".interfaces[].name",
        ".findings[].check",
    ] {
        assert!(seen.contains(field), "{field}");
    }
    assert_eq!(report["schema"], 1);
}

#[test]
fn every_check_is_in_the_docs() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/doctor.md");
    let docs = fs::read_to_string(docs).unwrap();
    let (_, report) = json(&mut doctor(XSTACK, &["--json", "--all", "--no-self-test"]));
    for finding in report["findings"].as_array().unwrap() {
        let check = finding["check"].as_str().unwrap();
        assert!(docs.contains(&format!("| `{check}` |")), "docs/doctor.md does not list the check {check}");
        for field in ["what", "severity"] {
            assert!(finding[field].as_str().is_some_and(|text| !text.is_empty()), "{finding}");
        }
        // What is not well has a reason.
        assert_eq!(finding["why"] == "", finding["severity"] == "ok", "{finding}");
    }
}

/// A copy of the command that anybody may run, and a way to be somebody without rights.
fn as_nobody(arguments: &[&str]) -> Option<Output> {
    if !nix::unistd::geteuid().is_root() {
        return Some(doctor(XSTACK, arguments).output().unwrap());
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("xstack");
    fs::copy(XSTACK, &copy).unwrap();
    let mut command = doctor(copy.to_str()?, arguments);
    Some(command.uid(65_534).gid(65_534).output().unwrap())
}

#[test]
fn without_root_it_says_what_it_could_not_see_and_does_not_fail_for_that() {
    let output = as_nobody(&["--json", "--all"]).unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["capabilities"]["root"], false);
    assert_eq!(report["self_test"]["outcome"], "skipped", "{}", report["self_test"]);
    assert_eq!(report["self_test"]["command"], "sudo xstack doctor");
    let about_the_host = |finding: &&Value| finding["interface"].is_null();
    let findings = report["findings"].as_array().unwrap();
    for finding in findings.iter().filter(about_the_host) {
        let is_bad = finding["severity"] == "warning" || finding["severity"] == "problem";
        assert!(!is_bad || finding["check"] == "bpf_jit", "{finding}");
    }
    let may = findings.iter().find(|finding| finding["check"] == "capabilities").unwrap();
    assert_eq!(may["severity"], "note");
    assert!(may["fix"]["command"].as_str().unwrap().starts_with("sudo setcap cap_net_raw"), "{may}");
}

#[test]
fn colours_are_for_terminals_without_no_color() {
    // A terminal of our own, by script(1), which is everywhere where there is a util-linux.
    let terminal = |variable: Option<&str>| {
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command"]);
        command.arg(format!("{XSTACK} doctor --no-self-test lo")).arg("/dev/null").env_remove("NO_COLOR");
        command.envs(variable.map(|value| ("NO_COLOR", value)));
        command.output().map(|output| text(&output.stdout))
    };
    let Ok(coloured) = terminal(None) else {
        assert!(std::env::var_os("CI").is_none(), "script is not installed");
        println!("SKIP colours_are_for_terminals_without_no_color: script is not installed");
        return;
    };
    assert!(coloured.contains("\x1b[31mproblem"), "{coloured}");
    assert!(terminal(Some("")).unwrap().contains('\x1b'));
    let plain = terminal(Some("1")).unwrap();
    assert!(plain.contains("problem") && !plain.contains('\x1b'), "{plain}");
}
