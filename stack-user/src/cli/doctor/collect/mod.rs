//! Finding things out, by reading only: nothing is attached, bound or changed.

mod host;
mod interface;

use super::facts::{Facts, Wish};
use crate::{
    cli::{error::Failure, global::GlobalOptions},
    device::interface::{self as links, InterfaceError},
};

/// Which interfaces to look at.
#[derive(Clone, Debug)]
pub(super) enum Which {
    /// Those of these names; without any, that of the default route.
    Named(Vec<String>),
    /// All that there are.
    All,
}

/// Looks at all of it.
///
/// # Errors
/// [`Failure::Interface`] for a name that there is not, or if there is no default route to tell one.
pub(super) async fn collect(which: &Which, options: &GlobalOptions) -> Result<Facts, Failure> {
    let found = match which {
        Which::Named(names) => links::details(names).await,
        Which::All => links::all_details().await,
    };
    let details = found.map_err(|error| {
        Failure::Interface(match error {
            InterfaceError::NoDefault { known } => format!(
                "there is no default route that would tell which interface to look at: name one of {}, or say --all",
                known.join(", ")
            ),
            error => error.to_string(),
        })
    })?;
    let host = host::look();
    let interfaces = interface::look(details, &host);
    Ok(Facts { host, interfaces, wish: Wish { vlan: options.vlan, queue: options.queue } })
}
