//! What the simulator can be asked for, by `cargo xtask sim` or by `cargo test`.

/// Seeds that `cargo test` runs: they are built without optimisation there.
const DEFAULT_SEEDS: u64 = 12;

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    /// The first seed, and how many.
    pub(crate) first: u64,
    pub(crate) seeds: u64,
    /// Threads.
    pub(crate) jobs: usize,
    /// Tell every frame.
    pub(crate) verbose: bool,
    /// Run every seed twice and compare.
    pub(crate) check_determinism: bool,
    /// Measure goodput and fairness instead, and compare with what is kept; or keep it.
    pub(crate) table: bool,
    pub(crate) bless: bool,
    /// Only say what there is, as cargo's own harness does.
    pub(crate) lists: bool,
    /// Go on after a failure.
    pub(crate) all: bool,
}

impl Arguments {
    /// The arguments, among which may be those that `cargo test` gives to every test program.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut arguments = Self {
            first: 0,
            seeds: DEFAULT_SEEDS,
            jobs: cores,
            verbose: false,
            check_determinism: false,
            table: false,
            bless: false,
            lists: false,
            all: false,
        };
        let (mut seed, mut seeds) = (None, None);
        let mut words = words;
        while let Some(word) = words.next() {
            let mut number = || {
                let value = words.next().ok_or_else(|| format!("{word} needs a number"))?;
                value.parse::<u64>().map_err(|_| format!("{word}: {value} is no number"))
            };
            match word.as_str() {
                "--seeds" => seeds = Some(number()?),
                "--seed" => seed = Some(number()?),
                "--jobs" => arguments.jobs = number()?.max(1) as usize,
                "--verbose" => arguments.verbose = true,
                "--check-determinism" => arguments.check_determinism = true,
                "--table" => arguments.table = true,
                "--bless" => arguments.bless = true,
                "--all" => arguments.all = true,
                "--list" => arguments.lists = true,
                // Of libtest's, these have a value; the others, and names of tests, mean nothing here.
                "--test-threads" | "--format" | "--color" | "--skip" | "--logfile" | "-Z" => {
                    words.next();
                }
                _ => {}
            }
        }
        arguments.first = seed.unwrap_or(0);
        // One seed that is named is meant alone.
        arguments.seeds = seeds.unwrap_or(if seed.is_some() { 1 } else { DEFAULT_SEEDS });
        if arguments.verbose {
            arguments.jobs = 1;
        }
        Ok(arguments)
    }
}
