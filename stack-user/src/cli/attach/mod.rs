//! `xstack attach` and `xstack detach`: the XDP program stays on an interface while the programs that use it come and go.

pub mod view;

use std::path::PathBuf;

use clap::Args;
use nix::unistd::Group;

use super::{
    console::Console,
    error::{Exit, Failure},
    global::GlobalOptions,
};
use crate::device::xdp::program::{
    self, ProgramError,
    persistent::{self, Detached, Standing, Wish},
};

/// What `xstack attach` can be told.
#[derive(Args, Clone, Debug)]
pub struct AttachOptions {
    /// The interface; as good as --interface
    #[arg(id = "IFACE", value_name = "IFACE")]
    pub interface: Option<String>,

    /// Let members of this group use the program, with CAP_NET_RAW as their only capability
    ///
    /// They may claim any address of the network, and take frames of it. They can't take the program off.
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,

    /// Attach by libxdp's dispatcher even where nothing else is attached, so that other programs can join later
    ///
    /// Where there is a dispatcher, the program joins it in any case.
    #[arg(long)]
    pub dispatcher: bool,

    /// Keep the program here, in a BPF file system [default: /sys/fs/bpf/xstack/IFACE]
    ///
    /// Programs find it by themselves in the default place only; elsewhere they need --program pinned:DIR.
    #[arg(long, value_name = "DIR")]
    pub pins: Option<PathBuf>,
}

/// What `xstack detach` can be told.
#[derive(Args, Clone, Debug)]
pub struct DetachOptions {
    /// The interface; as good as --interface
    #[arg(id = "IFACE", value_name = "IFACE")]
    pub interface: Option<String>,

    /// Detach even if a program uses it, which will then receive nothing more
    #[arg(long)]
    pub force: bool,

    /// Where the program is kept [default: /sys/fs/bpf/xstack/IFACE]
    #[arg(long, value_name = "DIR")]
    pub pins: Option<PathBuf>,
}

/// Attaches, and tells where.
pub async fn attach(options: AttachOptions, global: &GlobalOptions, mut console: Console) -> Exit {
    let attached = interface(options.interface.as_deref(), global).and_then(|interface| {
        let pins = options.pins.unwrap_or_else(|| program::directory(&interface));
        let group = options.group.as_deref().map(group).transpose()?;
        let wish = Wish { mode: global.mode, dispatcher: options.dispatcher, group, directory: Some(pins) };
        let standing = persistent::attach(&interface, &wish).map_err(failure)?;
        Ok(told(&interface, &standing))
    });
    conclude(attached, &mut console).await
}

/// Detaches, and tells what was there.
pub async fn detach(options: DetachOptions, global: &GlobalOptions, mut console: Console) -> Exit {
    let detached = interface(options.interface.as_deref(), global).and_then(|interface| {
        let detached =
            persistent::detach(&interface, options.pins.as_deref(), options.force).map_err(failure)?;
        Ok(match detached {
            Detached::Program(id) => format!("{interface}: program {id} is detached"),
            Detached::Pins => {
                format!("{interface}: no program was attached any more, and what was kept of it is removed")
            }
            Detached::Nothing => format!("{interface}: nothing was attached to stay"),
        })
    });
    conclude(detached, &mut console).await
}

/// The interface, which is not to be guessed here: what is done to it stays.
fn interface(argument: Option<&str>, global: &GlobalOptions) -> Result<String, Failure> {
    match (argument, global.interface.as_deref()) {
        (Some(one), Some(other)) if one != other => {
            Err(Failure::Usage(format!("{one} or {other}? Name one interface")))
        }
        (Some(name), _) | (None, Some(name)) if is_name(name) => Ok(name.to_owned()),
        (Some(name), _) | (None, Some(name)) => {
            Err(Failure::Usage(format!("'{name}' can't be an interface's name")))
        }
        (None, None) => Err(Failure::Usage("which interface? `ip link` lists them".to_owned())),
    }
}

/// Whether the kernel would take it for an interface. It becomes part of a path.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() < libc::IFNAMSIZ && name != "." && name != ".." && !name.contains('/')
}

fn group(name: &str) -> Result<u32, Failure> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => {
            Err(Failure::Usage(format!("there is no group '{name}': `sudo groupadd {name}` makes it")))
        }
        Err(error) => Err(Failure::Usage(format!("the group '{name}' cannot be looked up: {error}"))),
    }
}

fn failure(error: ProgramError) -> Failure {
    match error {
        ProgramError::InUse { .. } => Failure::InUse(error.to_string()),
        error => Failure::Interface(error.to_string()),
    }
}

fn told(interface: &str, standing: &Standing) -> String {
    let Standing { program, generic, in_dispatcher, directory, fallback, was_there } = standing;
    let is = if *was_there { "was attached already" } else { "is attached" };
    let mode = if *generic { "generic" } else { "native" };
    let beside = if *in_dispatcher { ", in libxdp's dispatcher" } else { "" };
    let mut text =
        format!("{interface}: program {program} {is}, {mode} mode{beside}, kept in {}", directory.display());
    if let Some(reason) = fallback {
        text.push_str(&format!("\n{interface}: the slower generic mode, because {reason}"));
    }
    text
}

async fn conclude(result: Result<String, Failure>, console: &mut Console) -> Exit {
    let printed = match result {
        Ok(text) => async {
            console.output.write_all((text + "\n").as_bytes()).await?;
            console.output.flush().await
        }
        .await
        .map_err(|source| Failure::Write { destination: "standard output".into(), source }),
        Err(failure) => Err(failure),
    };
    match printed {
        Ok(()) => Exit::Success,
        Err(failure) => {
            console.diagnostics.line(&failure.line());
            failure.exit()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_is_none() {
        for good in ["eth1", "br-lan", "eth1.7", "a23456789012345"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", "../eth1", "a/b", "a234567890123456"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
