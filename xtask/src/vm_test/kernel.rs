//! Kernels for the guest: from Debian's packages by version, or given by path. They are unpacked, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    debian::{self, Archive},
    process::capture,
    progress::Step,
};

/// Debian suites that have kernels, in the order in which they are asked. A suite of backports keeps several
/// versions; the stable one has the last long-term kernel.
const SUITES: [&str; 3] = ["trixie-backports", "trixie", "bookworm-backports"];

/// A kernel that lies there unpacked.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    /// As `uname -r` has it.
    pub(super) release: String,
    /// What QEMU boots.
    pub(super) image: PathBuf,
    /// Its modules, with `modules.dep`.
    pub(super) modules: PathBuf,
}

/// Which kernel is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Request {
    /// The newest that there is.
    Newest,
    /// `6.16+`: the oldest series that is at least this one.
    AtLeast(Vec<u32>),
    /// `6.12`, `7.3.4`: the newest whose version begins so.
    Series(Vec<u32>),
    /// A directory with an unpacked kernel, or a package.
    Path(PathBuf),
}

impl Request {
    /// What the command line says.
    pub(super) fn parse(text: &str) -> Result<Self> {
        if text == "newest" {
            return Ok(Self::Newest);
        }
        if text.contains('/') || text.ends_with(".deb") {
            return Ok(Self::Path(text.into()));
        }
        let (version, or_later) = match text.strip_suffix('+') {
            Some(version) => (version, true),
            None => (text, false),
        };
        let numbers = version.split('.').map(str::parse).collect::<Result<Vec<u32>, _>>();
        let numbers = numbers.with_context(|| {
            format!("{text:?} is no kernel: say newest, a version such as 6.12 or 6.16+, or a path")
        })?;
        Ok(if or_later { Self::AtLeast(numbers) } else { Self::Series(numbers) })
    }

    /// As the command line has it.
    pub(super) fn name(&self) -> String {
        let dotted = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
        match self {
            Self::Newest => "newest".into(),
            Self::AtLeast(numbers) => format!("{}+", dotted(numbers)),
            Self::Series(numbers) => dotted(numbers),
            Self::Path(path) => path.display().to_string(),
        }
    }

    /// The best of these.
    fn choose<'a>(&self, known: &'a [Release]) -> Option<&'a Release> {
        let newest = |wanted: &[u32]| {
            known
                .iter()
                .filter(|release| release.numbers.starts_with(wanted))
                .max_by_key(|found| &found.numbers)
        };
        match self {
            Self::Newest => newest(&[]),
            Self::Series(wanted) => newest(wanted),
            Self::AtLeast(least) => {
                let late_enough = known.iter().filter(|release| release.numbers >= *least);
                let oldest = late_enough.min_by_key(|release| &release.numbers)?;
                newest(oldest.numbers.get(..2)?)
            }
            Self::Path(_) => None,
        }
    }
}

/// Debian's flavours of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Flavour {
    /// Small: the drivers of virtual machines' own devices only.
    Cloud,
    /// Every driver, and three times the download.
    Generic,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Generic => "generic",
        }
    }
}

/// A kernel that a suite has.
#[derive(Debug, PartialEq, Eq)]
struct Release {
    name: String,
    numbers: Vec<u32>,
    /// What its files are in.
    packages: Vec<String>,
}

/// Unpacked kernels, kept between runs.
pub(super) struct Kernels {
    dir: PathBuf,
    /// Whether to ask the mirror also when what is asked for is there.
    refresh: bool,
}

impl Kernels {
    pub(super) fn new(dir: PathBuf, refresh: bool) -> Self {
        Self { dir, refresh }
    }

    /// The kernel that is asked for, downloaded if it is not there yet.
    pub(super) fn get(&self, request: &Request, flavour: Flavour) -> Result<Kernel> {
        if let Request::Path(path) = request {
            return self.given(path);
        }
        // What a request meant when it was first made.
        let resolved = self.dir.join(format!("{}-{}", request.name(), flavour.name()));
        if !self.refresh
            && let Ok(kernel) = unpacked(&resolved)
        {
            return Ok(kernel);
        }
        let directory = self.download(request, flavour).with_context(|| {
            format!(
                "there is no kernel {} to be had; unpack one of your own (its image and modules, as Debian's packages \
                 have them) and say --kernel DIRECTORY, or --kernel FILE.deb",
                request.name()
            )
        })?;
        let _ = fs::remove_file(&resolved);
        std::os::unix::fs::symlink(&directory, &resolved)?;
        unpacked(&resolved)
    }

    /// Whether a request was answered before.
    pub(super) fn has(&self, request: &Request, flavour: Flavour) -> bool {
        self.dir.join(format!("{}-{}", request.name(), flavour.name())).exists()
    }

    fn given(&self, path: &Path) -> Result<Kernel> {
        if path.is_dir() {
            return unpacked(path);
        }
        ensure!(path.is_file(), "there is no kernel at {}", path.display());
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let directory = self.dir.join(format!("given-{stem}"));
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        debian::unpack(path, &directory)?;
        unpacked(&directory)
    }

    /// Returns the directory's name, below ours.
    fn download(&self, request: &Request, flavour: Flavour) -> Result<String> {
        let wanted = request.name();
        let step = Step::start(format!("kernel {wanted}"));
        for suite in SUITES {
            step.detail(&format!("reading the package list of {suite}"));
            let Ok(archive) = Archive::open(&self.dir.join(format!("apt-{suite}")), &[suite]) else {
                continue;
            };
            let releases = releases(&archive.names("linux-")?, flavour);
            let Some(release) = request.choose(&releases) else { continue };
            let directory = self.dir.join(&release.name);
            if !directory.exists() {
                // So that one which is there is whole.
                let partial = self.dir.join(format!("{}.partial", release.name));
                let _ = fs::remove_dir_all(&partial);
                for package in &release.packages {
                    step.detail(&format!("downloading {package}"));
                    archive.unpack(package, &partial)?;
                }
                unpacked(&partial)?;
                fs::rename(&partial, &directory)?;
            }
            step.done(&format!("it is {}, from {suite}", release.name));
            return Ok(release.name.clone());
        }
        bail!("none of Debian's suites {SUITES:?} has it")
    }
}

/// The kernels among a suite's packages. Their files are in an image of their own, since 6.19 in two packages.
fn releases(packages: &[String], flavour: Flavour) -> Vec<Release> {
    let is_there = |name: &str| packages.iter().any(|package| package == name);
    let release = |package: &String| {
        let name = package.strip_prefix("linux-image-")?;
        let (version, rest) = name.split_once(['+', '-'])?;
        let found = match rest.strip_suffix("-amd64").unwrap_or(rest) {
            rest if !name.ends_with("-amd64") || rest.ends_with("-rt") => return None,
            rest if rest.ends_with("-cloud") => Flavour::Cloud,
            _ => Flavour::Generic,
        };
        let numbers = version.split('.').map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>()?;
        let split = ["binary", "modules"].map(|part| format!("linux-{part}-{name}"));
        let packages = match split.each_ref().map(|part| is_there(part)) {
            [true, true] => split.to_vec(),
            [false, false] => vec![package.clone()],
            // Of an older one the archive may have kept one half only.
            _ => return None,
        };
        (found == flavour).then(|| Release { name: name.to_owned(), numbers, packages })
    };
    packages.iter().filter_map(release).collect()
}

/// The one kernel below a directory.
fn unpacked(root: &Path) -> Result<Kernel> {
    let root = root.canonicalize().with_context(|| format!("there is no kernel in {}", root.display()))?;
    let library = ["usr/lib/modules", "lib/modules"].map(|path| root.join(path));
    let library = library.iter().find(|path| path.is_dir());
    let library = library.with_context(|| format!("{} has no lib/modules", root.display()))?;
    let releases: Vec<_> = fs::read_dir(library)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let [modules] = releases.as_slice() else {
        bail!("{} has {} kernels in it instead of one", library.display(), releases.len());
    };
    let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let image = [modules.join("vmlinuz"), root.join(format!("boot/vmlinuz-{release}"))];
    let image = image.into_iter().find(|path| path.is_file());
    let image = image.with_context(|| format!("{} has no vmlinuz of {release}", root.display()))?;
    if !modules.join("modules.dep").is_file() {
        index(library, &release)?;
    }
    Ok(Kernel { release, image, modules: modules.clone() })
}

/// Packages come without the index of their modules: installing them would make it.
pub(super) fn index(library: &Path, release: &str) -> Result<()> {
    // depmod wants `lib/modules` below what it gets.
    let base = tempfile::tempdir()?;
    fs::create_dir(base.path().join("lib"))?;
    std::os::unix::fs::symlink(library, base.path().join("lib/modules"))?;
    capture(Command::new("depmod").arg("-b").arg(base.path()).arg(release)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(flavour: Flavour) -> Vec<Release> {
        let packages = [
            "linux-image-6.12.107+deb13-amd64",
            "linux-image-6.12.117+deb13-amd64",
            "linux-image-6.12.117+deb13-amd64-unsigned",
            "linux-image-6.12.117+deb13-cloud-amd64",
            "linux-image-6.12.117+deb13-rt-amd64",
            "linux-image-6.16.3+deb13-amd64",
            "linux-image-6.16.12+deb13-amd64",
            "linux-image-7.3.4+deb13-amd64",
            "linux-image-7.3.4+deb13-amd64-dbg",
            "linux-binary-7.3.4+deb13-amd64",
            "linux-modules-7.3.4+deb13-amd64",
            "linux-image-7.2.9+deb13-amd64",
            "linux-binary-7.2.9+deb13-amd64",
            "linux-image-amd64",
            "linux-headers-7.3.4+deb13-amd64",
        ];
        releases(&packages.map(str::to_owned), flavour)
    }

    fn chosen(request: &str) -> Option<String> {
        let releases = known(Flavour::Generic);
        Request::parse(request).unwrap().choose(&releases).map(|release| release.name.clone())
    }

    #[test]
    fn a_version_names_the_newest_that_begins_so() {
        assert_eq!(chosen("newest").as_deref(), Some("7.3.4+deb13-amd64"));
        assert_eq!(chosen("6.12").as_deref(), Some("6.12.117+deb13-amd64"));
        assert_eq!(chosen("6.12.107").as_deref(), Some("6.12.107+deb13-amd64"));
        assert_eq!(chosen("6.1"), None, "6.12 is not of the series 6.1");
    }

    #[test]
    fn a_version_or_later_is_the_oldest_series_that_there_is() {
        assert_eq!(chosen("6.16+").as_deref(), Some("6.16.12+deb13-amd64"));
        assert_eq!(chosen("6.13+").as_deref(), Some("6.16.12+deb13-amd64"));
        assert_eq!(chosen("7.4+"), None);
        assert_eq!(chosen("7.0+").as_deref(), Some("7.3.4+deb13-amd64"), "7.2.9 lacks its modules");
    }

    #[test]
    fn flavours_are_told_apart_and_others_left_out() {
        let names = |flavour| known(flavour).into_iter().map(|release| release.name).collect::<Vec<_>>();
        assert_eq!(names(Flavour::Cloud), ["6.12.117+deb13-cloud-amd64"]);
        assert_eq!(names(Flavour::Generic).len(), 5);
    }

    #[test]
    fn newer_kernels_are_in_two_packages() {
        let releases = known(Flavour::Generic);
        let packages = |request: &str| {
            let request = Request::parse(request).unwrap();
            request.choose(&releases).unwrap().packages.clone()
        };
        assert_eq!(packages("6.12"), ["linux-image-6.12.117+deb13-amd64"]);
        assert_eq!(packages("7.3"), ["linux-binary-7.3.4+deb13-amd64", "linux-modules-7.3.4+deb13-amd64"]);
    }

    #[test]
    fn what_is_neither_version_nor_path_is_refused() {
        assert_eq!(Request::parse("./linux.deb").unwrap(), Request::Path("./linux.deb".into()));
        let error = Request::parse("latest").unwrap_err().to_string();
        assert!(error.contains("newest"), "{error}");
    }
}
