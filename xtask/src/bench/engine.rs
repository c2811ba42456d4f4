//! Runs cases: every entry once, and again, and again. What disturbs the machine for a while then disturbs all of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::case::{Case, Content, Entry, Plan, Process, Program, Read, Reading, Recipe, Scene, Side, Teller};
use super::machine::{self, Machine};
use super::metric::FIRST_BYTE;
use super::network::Network;
use super::results::{Outcome, Rows};
use super::running::{Running, bounded};
use super::stop::Stop;
use crate::process::find_program;
use crate::progress::Steps;

/// How long a scene may take beyond what it measures: both ends come up, and go.
const SCENE_TAKES: Duration = Duration::from_secs(40);

/// What was built for this.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tools {
    pub(super) xstack: PathBuf,
    /// By bench target.
    pub(super) benches: BTreeMap<String, PathBuf>,
}

/// Runs cases of a plan.
pub(super) struct Engine<'a> {
    pub(super) plan: Plan,
    pub(super) tools: &'a Tools,
    pub(super) stop: &'a Stop,
    /// Cores for the left and the right end.
    pub(super) cores: [usize; 2],
}

impl Engine<'_> {
    /// Runs a case. Runs that fail are told in the outcome; an error is for what stops the whole.
    pub(super) fn run(&self, case: &Case, progress: &Steps) -> Result<Outcome> {
        let (began, load_before) = (SystemTime::now(), machine::load());
        let started = Instant::now();
        let rounds = rounds(case, self.plan);
        let mut rows = Rows::default();
        let mut failures: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for round in 0..rounds {
            for entry in &case.entries {
                self.stop.check()?;
                progress.next(&format!("{}, round {} of {rounds}: {}", case.name, round + 1, entry.name));
                match self.run_entry(entry, round) {
                    Ok(readings) => {
                        for Reading { row, metric, value } in readings {
                            rows.put(row.as_deref().unwrap_or(&entry.name), metric, round, value);
                        }
                    }
                    // An interrupted run is no failed one.
                    Err(error) => {
                        self.stop.check()?;
                        let told = format!("{error:#}");
                        progress.tell(&format!("{}: {}: {told}", case.name, entry.name));
                        failures.entry(entry.name.clone()).or_default().push(told);
                    }
                }
            }
        }
        rows.finish(rounds);
        Ok(Outcome {
            case: case.name.to_owned(),
            about: case.about.clone(),
            plotted: case.plotted.name.to_owned(),
            began: began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
            took_seconds: started.elapsed().as_secs_f64(),
            load_before,
            plan: Plan { rounds, ..self.plan },
            machine: Machine::here(),
            verdicts: case.targets.iter().map(|target| target.judge(&rows)).collect(),
            rows,
            commands: case.entries.iter().map(|entry| (entry.name.clone(), commands(entry))).collect(),
            failures,
        })
    }

    fn run_entry(&self, entry: &Entry, round: usize) -> Result<Vec<Reading>> {
        // For the files of a run: some are read by a server that has given up being root.
        let directory =
            tempfile::Builder::new().prefix("xs-bench-").tempdir().context("cannot make a directory")?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))
            .context("cannot open the directory of a run for all")?;
        match &entry.recipe {
            Recipe::Scene(scene) => self.run_scene(scene, directory.path()),
            Recipe::Program(program) => self.run_program(program, round, directory.path()),
        }
    }

    fn run_scene(&self, scene: &Scene, directory: &Path) -> Result<Vec<Reading>> {
        for (name, content) in &scene.files {
            let path = directory.join(name);
            match content {
                Content::Text(text) => fs::write(&path, self.fill_in(text, directory)),
                Content::Made(make) => fs::write(&path, make()?),
            }
            .with_context(|| format!("cannot write {}", path.display()))?;
        }
        let limit = SCENE_TAKES + Duration::from_secs((self.plan.seconds + self.plan.warm_up).into());
        // Ends after the processes: what was made last goes first.
        let network = Network::new(scene.link)?;
        let mut background = Started::default();
        for (index, process) in scene.background.iter().enumerate() {
            let mut running =
                self.start(&network, process, &format!("background-{index}"), directory, limit, false)?;
            running.wait_until(process.ready, limit, self.stop)?;
            background.0.push(running);
        }
        let has_pipe = matches!(scene.read, Read::FirstByte);
        let mut client = self.start(&network, &scene.client, "client", directory, limit, has_pipe)?;
        if has_pipe {
            let took = client.first_byte(self.stop)?;
            client.wait(limit, self.stop)?;
            return Ok(vec![Reading::new(FIRST_BYTE, took.as_nanos() as f64)]);
        }
        let said = client.wait(limit, self.stop)?;
        let said = match scene.teller {
            Teller::Client => said,
            Teller::Background(place) => {
                background.0.get_mut(place).context("there is no such process")?.wait(limit, self.stop)?
            }
        };
        scene.read.read(&said)
    }

    fn start(
        &self,
        network: &Network,
        process: &Process,
        name: &str,
        directory: &Path,
        limit: Duration,
        has_pipe: bool,
    ) -> Result<Running> {
        let words: Vec<_> = process.words.iter().map(|word| self.fill_in(word, directory)).collect();
        let program = words.first().context("a process without a program")?;
        let program = installed(program)?;
        let core = self.cores[match process.side {
            Side::Left => 0,
            Side::Right => 1,
        }];
        let front = bounded(limit, Some(core));
        let mut command = network.command(process.side, &front[0]);
        command.args(&front[1..]).arg(program).args(&words[1..]);
        Running::start(command, name, directory, has_pipe)
    }

    fn run_program(&self, program: &Program, round: usize, directory: &Path) -> Result<Vec<Reading>> {
        let binary = self.tools.benches.get(program.bench);
        let binary = binary.with_context(|| format!("stack-user has no bench {}", program.bench))?;
        let limit = Duration::from_secs(program.limit);
        let front = bounded(limit, program.pinned.then_some(self.cores[1]));
        let mut command = Command::new(&front[0]);
        command.args(&front[1..]).arg(binary);
        command.args(program.arguments.iter().map(|word| word.replace("{round}", &round.to_string())));
        let mut running = Running::start(command, program.bench, directory, false)?;
        program.read.read(&running.wait(limit, self.stop)?)
    }

    fn fill_in(&self, text: &str, directory: &Path) -> String {
        let text = text
            .replace("{xstack}", &self.tools.xstack.to_string_lossy())
            .replace("{directory}", &directory.to_string_lossy());
        self.tools
            .benches
            .iter()
            .fold(text, |text, (name, path)| text.replace(&bench_word(name), &path.to_string_lossy()))
    }
}

/// What stands for a bench target in the words of a process.
pub(super) fn bench_word(name: &str) -> String {
    format!("{{bench:{name}}}")
}

/// What has been started, and is ended in the opposite order.
#[derive(Default)]
struct Started(Vec<Running>);

impl Drop for Started {
    fn drop(&mut self) {
        while let Some(running) = self.0.pop() {
            drop(running);
        }
    }
}

impl Read {
    /// The figures in what was printed.
    pub(super) fn read(&self, said: &str) -> Result<Vec<Reading>> {
        match self {
            Self::Json(places) => {
                let json: serde_json::Value =
                    serde_json::from_str(said).with_context(|| format!("this is no JSON: {said}"))?;
                let number = |pointer: &str| json.pointer(pointer).and_then(serde_json::Value::as_f64);
                places
                    .iter()
                    .map(|&(metric, pointer)| {
                        let value = number(pointer)
                            .with_context(|| format!("there is no number at {pointer} in {said}"))?;
                        Ok(Reading::new(metric, value))
                    })
                    .collect()
            }
            Self::With(read) => read(said),
            Self::FirstByte => bail!("the first byte has no figures in it"),
        }
    }
}

/// How often a case is run.
pub(super) fn rounds(case: &Case, plan: Plan) -> usize {
    plan.rounds.min(case.most_rounds).max(1)
}

/// Two cores that we may use; the same one twice if there is no other.
pub(super) fn cores() -> Result<[usize; 2]> {
    use nix::sched::{CpuSet, sched_getaffinity};
    let allowed =
        sched_getaffinity(nix::unistd::Pid::from_raw(0)).context("cannot ask which cores we may use")?;
    let mut cores = (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false));
    let first = cores.next().context("there is no core that we may use")?;
    Ok([first, cores.next().unwrap_or(first)])
}

fn installed(program: &str) -> Result<PathBuf> {
    if program.contains('/') {
        return Ok(program.into());
    }
    find_program(program)
        .with_context(|| format!("{program} is not installed; `cargo xtask setup` brings it"))
}

/// What an entry runs, as one would type it.
fn commands(entry: &Entry) -> Vec<String> {
    match &entry.recipe {
        Recipe::Scene(scene) => scene.processes().map(|process| process.words.join(" ")).collect(),
        Recipe::Program(program) => {
            vec![format!("cargo bench --bench {} -- {}", program.bench, program.arguments.join(" "))]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::metric::{GOODPUT, P50};
    use crate::bench::target::{At, Target};

    #[test]
    fn figures_are_read_where_they_are_and_missed_where_they_are_not() {
        let read = Read::Json(vec![(GOODPUT, "/end/sum/bits_per_second"), (P50, "/latency/0")]);
        let readings = read.read(r#"{"end":{"sum":{"bits_per_second":1.5e9}},"latency":[7]}"#).unwrap();
        assert_eq!(readings, [Reading::new(GOODPUT, 1.5e9), Reading::new(P50, 7.0)]);
        let error = read.read(r#"{"end":{}}"#).unwrap_err();
        assert!(error.to_string().contains("/end/sum/bits_per_second"), "{error}");
        assert!(read.read("no JSON").is_err());
    }

    /// A case of one program, which is a shell here.
    fn shell_case(script: &str) -> (Case, Tools) {
        let program = Program {
            bench: "shell",
            arguments: vec!["-c".into(), script.into()],
            pinned: false,
            limit: 20,
            read: Read::Json(vec![(P50, "/p50")]),
        };
        let case = Case {
            name: "tiny",
            about: "A shell.".into(),
            entries: vec![Entry::program("shell", program)],
            targets: vec![Target::absolute("it", At::new("shell", P50), 11.0)],
            plotted: P50,
            most_rounds: 3,
        };
        (
            case,
            Tools { benches: BTreeMap::from([("shell".to_owned(), "/bin/sh".into())]), ..Tools::default() },
        )
    }

    fn run(case: &Case, tools: &Tools, stop: &Stop) -> Result<Outcome> {
        let plan = Plan { rounds: 5, seconds: 1, warm_up: 0, quick: false };
        let runs = case.entries.len() * rounds(case, plan);
        Engine { plan, tools, stop, cores: cores()? }.run(case, &Steps::start("test", runs))
    }

    #[test]
    fn a_case_is_run_in_rounds_and_judged() {
        let (case, tools) = shell_case(r#"echo '{"p50":1{round}}'"#);
        let outcome = run(&case, &tools, &Stop::never()).unwrap();
        let series = outcome.rows.series(&At::new("shell", P50)).unwrap();
        assert_eq!(series.values, [Some(10.0), Some(11.0), Some(12.0)]);
        assert_eq!((outcome.verdicts[0].reached, outcome.failures.len()), (Some(true), 0));
        assert!(
            outcome.commands["shell"][0].starts_with("cargo bench --bench shell"),
            "{:?}",
            outcome.commands
        );
    }

    #[test]
    fn a_run_that_fails_is_told_and_the_others_count() {
        let (case, tools) =
            shell_case(r#"[ {round} != 1 ] || { echo oh dear >&2; exit 1; }; echo '{"p50":7}'"#);
        let outcome = run(&case, &tools, &Stop::never()).unwrap();
        let series = outcome.rows.series(&At::new("shell", P50)).unwrap();
        assert_eq!(series.values, [Some(7.0), None, Some(7.0)]);
        assert_eq!(outcome.failures["shell"].len(), 1);
        assert!(outcome.failures["shell"][0].contains("oh dear"), "{:?}", outcome.failures);
    }

    #[test]
    fn who_interrupts_gets_no_outcome_and_does_not_wait_for_the_run() {
        let (case, tools) = shell_case("sleep 60");
        let stop = Stop::never();
        let asks = stop.clone();
        let asker = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            asks.ask();
        });
        let started = Instant::now();
        assert_eq!(run(&case, &tools, &stop).unwrap_err().to_string(), "interrupted");
        assert!(started.elapsed() < Duration::from_secs(20));
        asker.join().unwrap();
    }

    /// The smallest real case: bytes over a veth pair between two ends of the kernel's.
    #[test]
    fn a_scene_is_a_network_with_programs_at_both_ends() {
        if !crate::process::is_root() {
            eprintln!("SKIP bench::engine: namespaces need root");
            return;
        }
        if let Some(missing) = ["iperf3", "ip"].into_iter().find(|program| find_program(program).is_none()) {
            eprintln!("SKIP bench::engine: {missing} is not installed");
            return;
        }
        let plan = Plan { rounds: 1, seconds: 1, warm_up: 0, quick: false };
        let mut case = crate::bench::cases::all(&plan).swap_remove(0);
        case.entries.retain(|entry| entry.name.contains("all offloads"));
        let tools = Tools::default();
        let engine = Engine { plan, tools: &tools, stop: &Stop::never(), cores: cores().unwrap() };
        let outcome = engine.run(&case, &Steps::start("test", 1)).unwrap();
        if outcome.failures.values().flatten().any(|failure| failure.contains("namespaces of a run")) {
            eprintln!("SKIP bench::engine: no namespaces here: {:?}", outcome.failures);
            return;
        }
        let goodput = outcome.rows.series(&At::new(&case.entries[0].name, GOODPUT));
        let goodput = goodput.unwrap_or_else(|| panic!("{:?}", outcome.failures)).summary.unwrap();
        assert!(goodput.median > 1e6, "{goodput:?}");
    }

    #[test]
    fn there_are_two_cores_or_one_twice() {
        let cores = cores().unwrap();
        let many = std::thread::available_parallelism().unwrap().get() > 1;
        assert_eq!(cores[0] != cores[1], many, "{cores:?}");
    }

    #[test]
    fn a_program_that_is_missing_is_named_with_who_brings_it() {
        let error = installed("surely-no-such-program").unwrap_err().to_string();
        assert!(error.contains("surely-no-such-program is not installed"), "{error}");
    }
}
