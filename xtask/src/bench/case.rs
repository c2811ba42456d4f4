//! What a case is: data, which the [engine](super::engine) runs and [targets](super::target) judge.

use anyhow::Result;

use super::metric::Metric;
use super::target::Target;

/// How much is run of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Plan {
    /// How often all entries of a case are run, in turns.
    pub(super) rounds: usize,
    /// Seconds that a run is measured for.
    pub(super) seconds: u32,
    /// Seconds before that which are not counted.
    pub(super) warm_up: u32,
    /// Only what is needed to see whether something is out of order.
    pub(super) quick: bool,
}

/// What is compared with each other, and therefore run in turns.
pub(super) struct Case {
    /// What the command line calls it.
    pub(super) name: &'static str,
    /// A sentence for the page and for `--list`.
    pub(super) about: String,
    pub(super) entries: Vec<Entry>,
    pub(super) targets: Vec<Target>,
    /// What the plot shows.
    pub(super) plotted: Metric,
    /// Fewer rounds than the plan's, for what takes long or hardly varies.
    pub(super) most_rounds: usize,
}

/// One way to do it.
pub(super) struct Entry {
    /// The row that its figures are in, unless the recipe names rows itself.
    pub(super) name: String,
    pub(super) recipe: Recipe,
}

impl Entry {
    pub(super) fn scene(name: impl Into<String>, scene: Scene) -> Self {
        Self { name: name.into(), recipe: Recipe::Scene(Box::new(scene)) }
    }

    pub(super) fn program(name: impl Into<String>, program: Program) -> Self {
        Self { name: name.into(), recipe: Recipe::Program(program) }
    }
}

impl Recipe {
    /// The bench targets of stack-user that it needs.
    pub(super) fn benches(&self) -> Vec<&str> {
        match self {
            Self::Program(program) => vec![program.bench],
            Self::Scene(scene) => scene.processes().filter_map(Process::bench).collect(),
        }
    }
}

/// How figures are had.
pub(super) enum Recipe {
    /// From programs at both ends of a link.
    Scene(Box<Scene>),
    /// From a program that measures all by itself.
    Program(Program),
}

/// Two namespaces, a veth pair between them, and who runs there. The client is on the left, unless a process says otherwise.
pub(super) struct Scene {
    pub(super) link: Link,
    /// Files of the scene's directory. `{directory}` in them is that directory.
    pub(super) files: Vec<(&'static str, Content)>,
    /// In this order, each once the one before it is ready. The last to be started are the first to be ended.
    pub(super) background: Vec<Process>,
    /// Whose end is the end of the run.
    pub(super) client: Process,
    /// Who tells the figures.
    pub(super) teller: Teller,
    pub(super) read: Read,
}

impl Scene {
    /// All who run in it, the client last.
    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.background.iter().chain([&self.client])
    }
}

/// What a file of a scene has in it.
pub(super) enum Content {
    Text(String),
    /// Made when it is needed.
    Made(fn() -> Result<Vec<u8>>),
}

/// Whose standard output is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Teller {
    Client,
    /// The one of the background that has this place in it, and ends by itself once the client has.
    Background(usize),
}

/// One end of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// The link, as it is before anybody runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) mtu: u32,
    /// What `ethtool -K` gets on the left and on the right.
    pub(super) left: &'static str,
    pub(super) right: &'static str,
}

/// A process of a scene.
pub(super) struct Process {
    pub(super) side: Side,
    /// Program and arguments. `{xstack}`, `{directory}` and, for a bench target of stack-user, `{bench:NAME}` are replaced.
    pub(super) words: Vec<String>,
    pub(super) ready: Ready,
}

/// How one knows that a process does what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// One does not have to.
    AtOnce,
    /// It has ended, and well.
    Ended,
    /// The kernel has a listening TCP socket at that port, in its namespace.
    Listens(u16),
    /// It has printed this, on either output.
    Says(&'static str),
}

impl Process {
    /// A process on a side, from its command line; words are separated by blanks.
    pub(super) fn new(side: Side, line: impl AsRef<str>) -> Self {
        let words = line.as_ref().split_whitespace().map(str::to_owned).collect();
        Self { side, words, ready: Ready::AtOnce }
    }

    pub(super) fn left(line: impl AsRef<str>) -> Self {
        Self::new(Side::Left, line)
    }

    pub(super) fn right(line: impl AsRef<str>) -> Self {
        Self::new(Side::Right, line)
    }

    /// The bench target that it is, if it is one.
    fn bench(&self) -> Option<&str> {
        self.words.first()?.strip_prefix("{bench:")?.strip_suffix('}')
    }

    /// One more argument, which may have blanks in it.
    pub(super) fn and(mut self, word: impl Into<String>) -> Self {
        self.words.push(word.into());
        self
    }

    pub(super) fn once(mut self, ready: Ready) -> Self {
        self.ready = ready;
        self
    }
}

/// A bench target of stack-user, which prints JSON.
pub(super) struct Program {
    /// Its name in stack-user/benches/.
    pub(super) bench: &'static str,
    /// `{round}` is replaced by the number of the round, from 0.
    pub(super) arguments: Vec<String>,
    /// Whether it runs on the second core alone.
    pub(super) pinned: bool,
    /// Seconds after which it is ended.
    pub(super) limit: u64,
    pub(super) read: Read,
}

/// How figures are read from what was printed.
pub(super) enum Read {
    /// JSON: pointers (RFC 6901) to numbers.
    Json(Vec<(Metric, &'static str)>),
    /// How long the first byte took to come; what it was does not matter.
    FirstByte,
    /// By a function.
    With(fn(&str) -> Result<Vec<Reading>>),
}

/// One figure of one run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reading {
    /// None for the entry's own.
    pub(super) row: Option<String>,
    pub(super) metric: Metric,
    pub(super) value: f64,
}

impl Reading {
    pub(super) fn new(metric: Metric, value: f64) -> Self {
        Self { row: None, metric, value }
    }

    pub(super) fn of(row: impl Into<String>, metric: Metric, value: f64) -> Self {
        Self { row: Some(row.into()), metric, value }
    }
}
