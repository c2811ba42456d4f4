//! Options whose order among each other matters: `-o` and `-O` belong to the URLs in turn, and the parts that `-d`
//! and its kin give are joined as they come. clap groups values by option, so their positions are asked for here.

use std::path::PathBuf;

use bytes::Bytes;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::options::read_file;
use crate::cli::error::Failure;

/// `-o` and `-O`, in their order: the first is for the first URL, and so on; URLs beyond them go to stdout.
#[derive(Clone, Debug, Default)]
pub struct OutputOptions(pub Vec<OutputOption>);

/// Where one body goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputOption {
    /// `-o FILE`; `-` is standard output.
    File(PathBuf),
    /// `-O`: a file named as the URL's last part.
    RemoteName,
}

impl Args for OutputOptions {
    fn augment_args(command: Command) -> Command {
        command
            .arg(
                Arg::new("output")
                    .short('o')
                    .long("output")
                    .value_name("FILE")
                    .action(ArgAction::Append)
                    .help("Write the body to FILE; the n-th -o or -O is for the n-th URL"),
            )
            .arg(
                // A flag that may be repeated and remembers where: an option whose value is implied.
                Arg::new("remote_name")
                    .short('O')
                    .long("remote-name")
                    .num_args(0)
                    .default_missing_value("")
                    .action(ArgAction::Append)
                    .help("Write the body to a file named as the URL's last part"),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for OutputOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let files = positioned(matches, "output").map(|(at, file)| (at, OutputOption::File(file.into())));
        let names = positioned(matches, "remote_name").map(|(at, _)| (at, OutputOption::RemoteName));
        Ok(Self(in_order(files.chain(names))))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// `-d`, `--data-raw` and `--data-binary`, in their order.
#[derive(Clone, Debug, Default)]
pub struct DataOptions(Vec<DataOption>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum DataOption {
    /// `-d`: `@FILE` is read, without its line ends and NULs.
    Text(String),
    /// `--data-raw`: `@` means itself.
    Raw(String),
    /// `--data-binary`: `@FILE` is read as it is.
    Binary(String),
}

impl DataOptions {
    /// The body of the request, if there is any: the parts joined by `&`.
    pub(super) fn load(&self) -> Result<Option<Bytes>, Failure> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let parts = self.0.iter().map(DataOption::load).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(parts.join(&b'&').into()))
    }

    /// Whether there is a body.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl DataOption {
    fn load(&self) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Text(text) => match text.strip_prefix('@') {
                Some(file) => {
                    let mut bytes = read_file(file)?;
                    bytes.retain(|byte| !matches!(byte, b'\r' | b'\n' | 0));
                    Ok(bytes)
                }
                None => Ok(text.clone().into_bytes()),
            },
            Self::Raw(text) => Ok(text.clone().into_bytes()),
            Self::Binary(text) => match text.strip_prefix('@') {
                Some(file) => read_file(file),
                None => Ok(text.clone().into_bytes()),
            },
        }
    }
}

impl Args for DataOptions {
    fn augment_args(command: Command) -> Command {
        let data = |name, help| {
            Arg::new(name)
                .long(name)
                .value_name("DATA")
                .action(ArgAction::Append)
                .allow_hyphen_values(true)
                .help(help)
        };
        command
            .arg(
                data("data", "POST this, or @FILE without its line ends; several are joined with &")
                    .short('d')
                    .alias("data-ascii"),
            )
            .arg(data("data-raw", "POST this, '@' meaning itself"))
            .arg(data("data-binary", "POST this, or @FILE exactly as it is"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for DataOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let text = positioned(matches, "data").map(|(at, text)| (at, DataOption::Text(text)));
        let raw = positioned(matches, "data-raw").map(|(at, text)| (at, DataOption::Raw(text)));
        let binary = positioned(matches, "data-binary").map(|(at, text)| (at, DataOption::Binary(text)));
        Ok(Self(in_order(text.chain(raw).chain(binary))))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The values of an option, each with its position on the command line.
fn positioned<'a>(matches: &'a ArgMatches, id: &str) -> impl Iterator<Item = (usize, String)> + use<'a> {
    let positions = matches.indices_of(id).into_iter().flatten();
    let values = matches.get_many::<String>(id).into_iter().flatten().cloned();
    positions.zip(values)
}

fn in_order<T>(positioned: impl Iterator<Item = (usize, T)>) -> Vec<T> {
    let mut all: Vec<_> = positioned.collect();
    all.sort_by_key(|(position, _)| *position);
    all.into_iter().map(|(_, value)| value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        outputs: OutputOptions,
        #[command(flatten)]
        data: DataOptions,
    }

    fn line(words: &str) -> Line {
        Line::try_parse_from(std::iter::once("x").chain(words.split(' '))).expect("parses")
    }

    #[test]
    fn outputs_keep_their_order() {
        let file = |name: &str| OutputOption::File(name.into());
        assert_eq!(
            line("-O -o a -O -o b").outputs.0,
            [OutputOption::RemoteName, file("a"), OutputOption::RemoteName, file("b")]
        );
    }

    #[test]
    fn data_is_joined_in_order_across_options() {
        let body = line("--data-raw @b -d a=1 --data-binary c -d -x").data.load().expect("no files");
        assert_eq!(body.as_deref(), Some(&b"@b&a=1&c&-x"[..]));
        assert_eq!(line("-O").data.load().expect("no files"), None);
    }

    #[test]
    fn a_file_is_read_with_or_without_its_line_ends() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), b"one\r\ntwo\0\n").expect("write");
        let path = file.path().display();
        let body = line(&format!("-d @{path} --data-binary @{path}")).data.load().expect("readable");
        assert_eq!(body.as_deref(), Some(&b"onetwo&one\r\ntwo\0\n"[..]));
        let missing = line("-d @/nonexistent/file").data.load().map_err(|failure| failure.exit().code());
        assert_eq!(missing, Err(26));
    }
}
