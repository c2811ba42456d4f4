//! From facts to findings: pure functions, one file for each part of the picture.

mod card;
mod host;
mod link;
mod neighbours;
mod offloads;
mod queues;
#[cfg(test)]
pub(super) mod testing;

use super::{
    facts::{Facts, Seen},
    finding::{Finding, Unseen},
};
use crate::{cli::doctor::facts::Interface, device::remedy::quoted};

/// What to make of it all: the machine's findings first, then each interface's.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = host::judge(facts);
    for interface in &facts.interfaces {
        let about = |finding: Finding| finding.about(&interface.details.name);
        findings.extend(judge_interface(facts, interface).into_iter().map(about));
    }
    findings
}

fn judge_interface(facts: &Facts, interface: &Interface) -> Vec<Finding> {
    let link = link::judge(interface);
    // Of what can never carry a frame of ours, the rest is no use to anybody.
    if !link::is_usable(&interface.details) {
        return link;
    }
    [
        link,
        card::judge(&facts.host, interface),
        queues::judge(facts, interface),
        offloads::judge(facts, interface),
        neighbours::judge(interface),
        card::judge_place(&facts.host, interface),
    ]
    .concat()
}

/// What could not be looked at, and the command that shows it.
pub(super) fn unseen(facts: &Facts) -> Vec<Unseen> {
    let mut unseen = Vec::new();
    for interface in facts.interfaces.iter().filter(|interface| link::is_usable(&interface.details)) {
        let name = &interface.details.name;
        let mut tell = |what: &str, why: &str, command: String| {
            unseen.push(Unseen { what: format!("{what} {name}"), why: why.to_owned(), command });
        };
        if let Seen::Unknown(why) = &interface.program {
            tell("the XDP program on", why, format!("sudo bpftool net show dev {}", quoted(name)));
        }
        if let Seen::Known(Some(program)) = &interface.program
            && program.name.is_none()
        {
            let command = format!("sudo bpftool prog show id {}", program.id);
            tell("the name of the XDP program on", "only root may ask for it", command);
        }
        if let Seen::Unknown(why) = &interface.sockets {
            tell(
                "AF_XDP sockets on the queues of",
                why,
                "grep ^XDP /proc/net/protocols   # how many there are in all".to_owned(),
            );
        }
        if let Seen::Unknown(why) = &interface.xdp {
            tell(
                "what the driver can do with XDP on",
                why,
                format!("sudo xdp-loader features {}", quoted(name)),
            );
        }
        if let Some(peer) = interface.details.peer.as_ref().filter(|peer| peer.features.is_none()) {
            let command = match &peer.namespace {
                Some(there) => format!("sudo {}ip -details link show", there.command_prefix()),
                None => format!("sudo xstack doctor --no-self-test {}", quoted(name)),
            };
            tell("the other end of", "it is in a network namespace that only root may look into", command);
        }
    }
    unseen
}
