//! Queues: how many there are, and where received frames go.

use std::collections::BTreeSet;

use crate::{
    cli::doctor::{
        facts::{Facts, Interface},
        finding::{Apply, Finding, Fix},
    },
    device::remedy::{Change, quoted},
};

pub(super) fn judge(facts: &Facts, interface: &Interface) -> Vec<Finding> {
    let spread = match facts.wish.queue {
        Some(queue) => one_queue(interface, queue),
        None => spread(interface),
    };
    [Some(count(interface)), spread].into_iter().flatten().collect()
}

fn count(interface: &Interface) -> Finding {
    const CHECK: &str = "queues";
    let details = &interface.details;
    let (name, rx) = (&details.name, details.rx_queues);
    let plural = if rx == 1 { "" } else { "s" };
    let Some(queues) = details.queues else {
        return Finding::ok(CHECK, format!("{name} receives on {rx} queue{plural}"));
    };
    let change = |combined| Change::Queues { interface: name.clone(), combined, was: queues.combined };
    let max = queues.max_combined;
    match details.driver.as_deref() {
        // Both set a queue aside for each of the others to send what a program redirects.
        Some("ena" | "gve") if max > 1 && queues.combined > max / 2 => Finding::warning(
            CHECK,
            format!("{name} uses {} of its {max} queues", queues.combined),
            "native XDP takes as many again to send, and the driver refuses it if there are not enough",
        )
        .fixed_by(Fix::change(change(max / 2), Apply::Disruptive)),
        Some("virtio_net") if queues.combined < max => Finding::warning(
            CHECK,
            format!("{name} uses {} of its {max} queues", queues.combined),
            "with an XDP program it may receive on more of them than are bound, and frames on the others are lost to us",
        )
        .fixed_by(Fix::change(change(max), Apply::Disruptive)),
        _ => {
            let most = queues.max_combined + queues.max_rx;
            Finding::ok(CHECK, format!("{name} receives on {rx} queue{plural} of {}", most.max(rx)))
        }
    }
}

/// All queues are bound, so that it does not matter where a frame goes; but it is passed on between shards, if nobody can
/// tell before where that is.
fn spread(interface: &Interface) -> Option<Finding> {
    const CHECK: &str = "rss";
    let details = &interface.details;
    let name = &details.name;
    if details.rx_queues < 2 {
        return None;
    }
    let used: BTreeSet<u32> = details.rx_table.iter().flatten().copied().collect();
    let unused = (0..details.rx_queues).filter(|queue| !used.contains(queue)).count();
    Some(if used.is_empty() {
        Finding::note(
            CHECK,
            format!("{name} does not tell how it spreads what it receives"),
            "a client's answers may come to another queue than its connection's, and are passed on between threads",
        )
    } else if !details.has_known_hash {
        Finding::note(
            CHECK,
            format!(
                "{name} spreads what it receives over {} queues, by a hash that it does not tell",
                used.len()
            ),
            "a client's answers may come to another queue than its connection's, and are passed on between threads",
        )
    } else if unused > 0 {
        Finding::note(
            CHECK,
            format!("{name} spreads what it receives over {} of {} queues", used.len(), details.rx_queues),
            "the others are bound, and take memory, for nothing",
        )
        .fixed_by(Fix::command(format!("sudo ethtool -X {} default", quoted(name))))
    } else {
        Finding::ok(
            CHECK,
            format!("{name} spreads what it receives over {} queues, by a hash that it tells", used.len()),
        )
    })
}

/// `--queue`: what comes to another one is lost.
fn one_queue(interface: &Interface, queue: u32) -> Option<Finding> {
    const CHECK: &str = "rss";
    let details = &interface.details;
    let name = &details.name;
    if queue >= details.rx_queues {
        let last = details.rx_queues.saturating_sub(1);
        return Some(Finding::problem(
            CHECK,
            format!("{name} has no queue {queue}: the last one is {last}"),
            "there is nothing to bind",
        ));
    }
    let table = details.rx_table.as_ref();
    if details.rx_queues == 1 || table.is_some_and(|table| table.iter().all(|&to| to == queue)) {
        return Some(Finding::ok(CHECK, format!("all that {name} receives comes to queue {queue}")));
    }
    let finding = Finding::warning(
        CHECK,
        format!("only queue {queue} of {} would be bound", details.rx_queues),
        "frames for our address that arrive on another one go to the kernel, and are lost to us",
    );
    Some(match table {
        Some(_) => {
            let change = Change::Steer { interface: name.clone(), start: queue, equal: 1 };
            finding.fixed_by(Fix::change(change, Apply::Manual))
        }
        None => finding.advise("leave --queue out"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::doctor::{
            facts::Wish,
            finding::Severity,
            judge::testing::{facts, find, host, interface},
        },
        device::interface::QueueCounts,
    };

    fn findings(interface: &Interface, queue: Option<u32>) -> Vec<Finding> {
        let mut facts = facts(host(), Vec::new());
        facts.wish = Wish { queue, ..Wish::default() };
        judge(&facts, interface)
    }

    #[test]
    fn all_queues_used_by_a_hash_that_is_known_is_fine() {
        let all = findings(&interface("eth1"), None);
        assert!(all.iter().all(|finding| finding.severity == Severity::Ok) && all.len() == 2, "{all:#?}");
    }

    #[test]
    fn drivers_that_need_or_add_queues_have_a_fix() {
        let mut card = interface("eth1");
        let mut fix = |driver: &str, combined, max_combined| {
            card.details.driver = Some(driver.to_owned());
            card.details.queues = Some(QueueCounts { combined, max_combined, ..QueueCounts::default() });
            find(findings(&card, None), "queues").fix.map(|fix| (fix.apply, fix.command, fix.undo))
        };
        let disruptive =
            |command: &str, undo: &str| Some((Apply::Disruptive, command.to_owned(), Some(undo.to_owned())));
        assert_eq!(
            fix("virtio_net", 1, 4),
            disruptive("sudo ethtool -L eth1 combined 4", "sudo ethtool -L eth1 combined 1")
        );
        assert_eq!(fix("virtio_net", 4, 4), None);
        assert_eq!(
            fix("ena", 8, 8),
            disruptive("sudo ethtool -L eth1 combined 4", "sudo ethtool -L eth1 combined 8")
        );
        assert_eq!(fix("ena", 4, 8), None);
        assert_eq!(fix("ena", 1, 1), None);
        assert_eq!(fix("ice", 1, 8), None);
    }

    #[test]
    fn how_frames_are_spread_is_told() {
        let mut card = interface("eth1");
        card.details.has_known_hash = false;
        assert_eq!(find(findings(&card, None), "rss").severity, Severity::Note);
        card.details.rx_table = None;
        assert!(find(findings(&card, None), "rss").what.contains("does not tell"));
        let mut half = interface("eth1");
        half.details.rx_table = Some(vec![0, 0, 2, 2]);
        assert!(find(findings(&half, None), "rss").what.contains("2 of 4"));
        half.details.rx_queues = 1;
        assert!(findings(&half, None).iter().all(|finding| finding.check != "rss"));
    }

    #[test]
    fn one_queue_wants_all_frames() {
        let mut card = interface("eth1");
        let warning = find(findings(&card, Some(2)), "rss");
        assert_eq!(warning.severity, Severity::Warning);
        assert_eq!(warning.fix.expect("a fix").command, "sudo ethtool -X eth1 start 2 equal 1");
        assert_eq!(find(findings(&card, Some(4)), "rss").severity, Severity::Problem);
        card.details.rx_table = Some(vec![2; 4]);
        assert_eq!(find(findings(&card, Some(2)), "rss").severity, Severity::Ok);
    }
}
