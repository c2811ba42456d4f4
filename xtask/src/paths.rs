//! Where things are: the workspace, and what cargo puts into it.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    // This package lies directly below the root, wherever the clone is.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
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
