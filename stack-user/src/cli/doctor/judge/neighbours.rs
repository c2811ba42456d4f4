//! Who else is on the interface: XDP programs, and sockets on its queues.

use crate::{
    cli::doctor::{
        facts::{Interface, Seen, Socket},
        finding::{Apply, Finding, Fix},
    },
    device::{
        remedy::{Change, quoted},
        xdp::program::OnInterface,
    },
};

pub(super) fn judge(interface: &Interface) -> Vec<Finding> {
    [program(interface), sockets(interface)].into_iter().flatten().collect()
}

fn program(interface: &Interface) -> Option<Finding> {
    const CHECK: &str = "program";
    let name = &interface.details.name;
    let Seen::Known(program) = &interface.program else { return None };
    let Some(program) = program else {
        return Some(Finding::ok(CHECK, format!("no XDP program is on {name}")));
    };
    let told = told(program);
    if program.kept.is_some() {
        return Some(Finding::ok(
            CHECK,
            format!("an XDP program stays on {name}, and commands join it: {told}"),
        ));
    }
    if program.is_ours {
        return Some(
            Finding::warning(
                CHECK,
                format!("an xstack is on {name}, by the XDP program {told}"),
                "one xstack has an interface at a time",
            )
            .advise(
                "go through it if it is a daemon, or stop it; `xstack attach` leaves a program that several share",
            )
            .fixed_by(Fix::command("xstack status")),
        );
    }
    if program.is_dispatcher() {
        return Some(
            Finding::note(
                CHECK,
                format!("libxdp's dispatcher is on {name}: {told}"),
                "several XDP programs share the interface by it, and ours may be one of them",
            )
            .fixed_by(Fix::command(format!("sudo xdp-loader status {}", quoted(name)))),
        );
    }
    if program.name.is_none() {
        return Some(
            Finding::warning(
                CHECK,
                format!("an XDP program is on {name}: {told}"),
                "an interface takes one program, unless all of them are loaded through libxdp; whose it is, only root may ask",
            )
            .fixed_by(Fix::command(format!("sudo bpftool prog show id {}", program.id))),
        );
    }
    let change = Change::Detach { interface: name.clone(), generic: program.is_generic };
    Some(
        Finding::problem(
            CHECK,
            format!("another XDP program is on {name}: {told}"),
            "an interface takes one program, unless all of them are loaded through libxdp",
        )
        .advise("stop what attached it, if it still runs; the command helps where nothing holds it")
        .fixed_by(Fix::change(change, Apply::Manual)),
    )
}

/// The program, and where it runs.
fn told(program: &OnInterface) -> String {
    let mode = if program.is_generic { "generic" } else { "native" };
    match &program.name {
        Some(name) => format!("`{name}` (id {}, {mode})", program.id),
        None => format!("id {} ({mode})", program.id),
    }
}

fn sockets(interface: &Interface) -> Option<Finding> {
    const CHECK: &str = "sockets";
    let name = &interface.details.name;
    let Seen::Known(sockets) = &interface.sockets else { return None };
    if sockets.is_empty() {
        return Some(Finding::ok(CHECK, format!("no AF_XDP socket is on the queues of {name}")));
    }
    let each: Vec<_> = sockets.iter().map(socket).collect();
    Some(
        Finding::warning(
            CHECK,
            format!("AF_XDP sockets are on {name}: {}", each.join(", ")),
            "a queue takes one of them, and a claim is made only where all queues can be bound",
        )
        .advise("stop the program that has them, or leave it the interface")
        .fixed_by(Fix::command("sudo ss --xdp --processes --extended")),
    )
}

fn socket(socket: &Socket) -> String {
    let mut told = format!("queue {}", socket.queue);
    if let Some(zero_copy) = socket.zero_copy {
        told.push_str(if zero_copy { " with zero-copy" } else { " with copies" });
    }
    match (&socket.process, socket.uid) {
        (Some((pid, name)), _) => told.push_str(&format!(" by {name} (pid {pid})")),
        (None, Some(uid)) => told.push_str(&format!(" by user {uid}")),
        (None, None) => {}
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::{
        finding::Severity,
        judge::testing::{find, interface},
    };

    fn with(name: Option<&str>, is_generic: bool, is_ours: bool) -> Finding {
        let mut card = interface("eth1");
        let name = name.map(str::to_owned);
        card.program = Seen::Known(Some(OnInterface { id: 17, name, is_generic, is_ours, kept: None }));
        find(judge(&card), "program")
    }

    #[test]
    fn nobody_else_is_fine() {
        assert!(judge(&interface("eth1")).iter().all(|finding| finding.severity == Severity::Ok));
    }

    #[test]
    fn other_programs_are_named_and_never_taken_off_by_us() {
        let other = with(Some("xdp_filter"), false, false);
        assert!(other.what.contains("`xdp_filter` (id 17, native)"), "{other:?}");
        let fix = other.fix.expect("a fix");
        assert_eq!((other.severity, fix.apply), (Severity::Problem, Apply::Manual));
        assert_eq!(fix.command, "sudo ip link set dev eth1 xdp off");
        let nameless = with(None, true, false);
        assert_eq!(nameless.severity, Severity::Warning);
        assert_eq!(nameless.fix.expect("a command").command, "sudo bpftool prog show id 17");
        let generic = with(Some("other"), true, false);
        assert_eq!(generic.fix.expect("a fix").command, "sudo ip link set dev eth1 xdpgeneric off");
        assert_eq!(with(Some("xdp_dispatcher"), false, false).severity, Severity::Note);
        assert!(with(Some("xstack"), false, true).advice.expect("advice").contains("daemon"));
    }

    #[test]
    fn a_program_that_stays_is_there_to_be_joined() {
        let mut card = interface("eth1");
        card.program = Seen::Known(Some(OnInterface {
            id: 17,
            name: Some("xstack".to_owned()),
            is_generic: false,
            is_ours: true,
            kept: Some("/sys/fs/bpf/xstack/eth1".into()),
        }));
        assert_eq!(find(judge(&card), "program").severity, Severity::Ok);
    }

    #[test]
    fn sockets_are_told_with_who_has_them() {
        let mut card = interface("eth1");
        let process = Some((42, "suricata".to_owned()));
        card.sockets = Seen::Known(vec![
            Socket { queue: 1, uid: Some(0), zero_copy: Some(true), process },
            Socket { queue: 2, uid: Some(7), zero_copy: None, process: None },
        ]);
        let what = find(judge(&card), "sockets").what;
        assert!(what.contains("queue 1 with zero-copy by suricata (pid 42), queue 2 by user 7"), "{what}");
        card.sockets = Seen::Unknown("no".to_owned());
        assert!(judge(&card).iter().all(|finding| finding.check != "sockets"));
    }
}
