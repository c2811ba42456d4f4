//! Where things are: the workspace, and what cargo puts into it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| root(env::var_os("CARGO_MANIFEST_DIR")));
    &ROOT
}

/// The root, by what `cargo run` says at run time: clones that share a target directory share this program, too, and the
/// one that was built last need not be the one that it is called in.
fn root(package: Option<OsString>) -> PathBuf {
    // This package lies directly below the root, wherever the clone is.
    let package = package.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// Cargo's target directory, also when the user has moved it.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace().join(dir),
        None => workspace().join("target"),
    }
}

/// A built binary of this workspace.
pub fn binary(profile_dir: &str, name: &str) -> PathBuf {
    target().join(profile_dir).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_the_one_that_cargo_was_called_in() {
        assert_eq!(root(Some("/somewhere/else/xtask".into())), Path::new("/somewhere/else"));
        assert!(root(None).join("xtask/Cargo.toml").is_file(), "called without cargo");
        assert!(workspace().join("xtask/Cargo.toml").is_file());
    }
}
