//! What is told while a command runs: the log (`--log`) for us, the story (`-v`) for the user. Both on stderr.

use std::fmt::{self, Write as _};
use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, fmt as log};

use super::console::{Diagnostics, printable};
use crate::telemetry::STORY;

/// How the targets of our own records start: the library's, the story's and the XDP program's.
const OURS: [&str; 2] = ["stack_user", "xstack"];

/// The subscriber for one run of a command: the log up to `level`, and the story if `verbose`.
///
/// With both, the story is not repeated in the log.
pub fn subscriber(
    diagnostics: &Diagnostics,
    level: LevelFilter,
    verbose: bool,
) -> impl Subscriber + for<'a> LookupSpan<'a> + Send + Sync + use<> {
    let untold = filter_fn(move |metadata| !(verbose && metadata.target() == STORY));
    // What the libraries have to say drowns what we do: it is for those who want all.
    let ours = filter_fn(move |metadata| {
        let target = metadata.target();
        level == LevelFilter::TRACE
            || *metadata.level() <= Level::INFO
            || OURS.iter().any(|prefix| target.starts_with(prefix))
    });
    // Whoever asks for details wants to know when and where; whoever does not, wants to know what to do.
    let details = (level > LevelFilter::WARN).then(|| {
        log::layer()
            .with_writer(diagnostics.clone())
            .with_ansi(colours(diagnostics))
            .with_filter(untold.clone())
            .with_filter(ours)
    });
    let plain = (level <= LevelFilter::WARN)
        .then(|| LineLayer { diagnostics: diagnostics.clone(), prefix: complaint }.with_filter(untold));
    let log = details.with_filter(level).and_then(plain.with_filter(level));
    let story = verbose.then(|| {
        LineLayer { diagnostics: diagnostics.clone(), prefix: |_| "*" }
            .with_filter(filter_fn(|metadata| metadata.target() == STORY))
    });
    tracing_subscriber::registry().with(log).with(story)
}

/// How a line starts that nobody asked for.
fn complaint(level: Level) -> &'static str {
    if level == Level::ERROR { "xstack: error:" } else { "xstack: warning:" }
}

/// Colours are for terminals, and not for those who asked for none (<https://no-color.org>).
fn colours(diagnostics: &Diagnostics) -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    diagnostics.is_terminal() && std::io::stderr().is_terminal() && !no_color
}

/// Prints each event as a line, `PREFIX message field=value…`: the story in curl's way, complaints in the shell's.
struct LineLayer {
    diagnostics: Diagnostics,
    prefix: fn(Level) -> &'static str,
}

impl<S: Subscriber> Layer<S> for LineLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut line = Line(String::from((self.prefix)(*event.metadata().level())));
        event.record(&mut line);
        self.diagnostics.line(&printable(&line.0));
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("buffer").write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn told(level: LevelFilter, verbose: bool, events: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let diagnostics = Diagnostics::new(buffer.clone(), false);
        tracing::subscriber::with_default(subscriber(&diagnostics, level, verbose), events);
        let bytes = buffer.0.lock().expect("buffer").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    fn events() {
        tracing::info!(target: STORY, mode = "native", "Attached to {}", "xs-a\u{1b}[0m");
        tracing::warn!("a warning");
        tracing::debug!("a detail");
    }

    #[test]
    fn the_story_is_told_on_request_only_and_cannot_steer_the_terminal() {
        let text = told(LevelFilter::OFF, true, events);
        assert_eq!(text, "* Attached to xs-a\\x1b[0m mode=native\n");
        assert_eq!(told(LevelFilter::OFF, false, events), "");
    }

    #[test]
    fn the_log_obeys_its_level_and_does_not_repeat_the_story() {
        let text = told(LevelFilter::WARN, false, events);
        assert_eq!(text, "xstack: warning: a warning\n");
        let text = told(LevelFilter::DEBUG, true, events);
        assert!(text.contains("a detail"));
        assert_eq!(text.matches("Attached").count(), 1);
        let library = || tracing::debug!(target: "hickory_net", "a library's detail");
        assert_eq!(told(LevelFilter::DEBUG, false, library), "");
        assert!(told(LevelFilter::TRACE, false, library).contains("a library's detail"));
        assert!(!text.contains("\u{1b}"), "no colours without a terminal");
    }
}
