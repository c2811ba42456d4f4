//! What must hold, whatever happened: streams arrive whole or fail for a reason that there was, nobody waits for ever,
//! no frame is lost in a host, and nothing is dropped without cause.

use stack_user::{
    frame::FramePool,
    tcp::{Error, Unreachable},
    telemetry::DropReason,
    time::{Duration, Instant},
};

use crate::{
    app::{End, Quit},
    world::{Session, World},
};

/// Longer without a byte read or written, by an application that wants to, is a standstill. Retransmissions and window
/// probes are a minute apart at most, and a few in a row may be lost.
const STANDSTILL: Duration = Duration::from_secs(400);

/// How long everything may take once nothing more goes wrong: megabytes through a window of a kilobyte take their time.
/// Who does not get on at all is found by [`STANDSTILL`].
const PATIENCE: Duration = Duration::from_secs(4 * 3_600);

/// How long the hosts get to forget what is over: TIME-WAIT takes 60 s, and a last retransmission may be that late.
const REST: Duration = Duration::from_secs(200);

/// An outage that a connection need not survive: neither the handshake, nor data that stays unacknowledged.
const LONG_OUTAGE: Duration = Duration::from_secs(60);

/// What can go wrong in a scenario, and hence what need not surprise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Frames may get lost, late, doubled or damaged, other than by a full queue.
    pub(crate) disturbs: bool,
    pub(crate) corrupts: bool,
    /// ARP may get lost.
    pub(crate) loses_arp: bool,
    /// The longest time that something did not work, or that a clock jumped by.
    pub(crate) outage: Duration,
    /// Segments of full size may vanish for good.
    pub(crate) has_black_hole: bool,
    /// Chunks may be scarce, or a NIC slow.
    pub(crate) starves: bool,
    pub(crate) restarts: bool,
    /// When the last of it is over.
    pub(crate) over_at: Instant,
}

/// Runs a world until all of its connections are over, and judges it.
pub(crate) fn judge(world: &mut World, faults: &Faults) -> Result<(), String> {
    let last_start = world.sessions.iter().map(|session| session.plan.start).max().unwrap_or_default();
    let end = last_start.max(faults.over_at) + PATIENCE;
    world.run(end, |world| look(world, faults))?;
    for number in 0..world.sessions.len() {
        verdict(world, faults, number).map_err(|what| format!("session {number}: {what}"))?;
    }
    settle(world)?;
    drops(world, faults)
}

/// Whether all is over; or who is at a standstill.
fn look(world: &mut World, faults: &Faults) -> Result<bool, String> {
    let now = world.now;
    for (number, host) in world.hosts.iter_mut().enumerate() {
        host.verdict(now).map_err(|what| format!("host {number}: {what}"))?;
    }
    let mut all_over = true;
    for number in 0..world.sessions.len() {
        let session = &world.sessions[number];
        if session.is_judged || !session.has_started {
            all_over &= session.is_judged;
            continue;
        }
        if is_over(session) {
            world.sessions[number].is_judged = true;
            continue;
        }
        all_over = false;
        let quiet_since = session
            .sides
            .iter()
            .flatten()
            .map(|side| side.progress_at.max(side.sleeps_until.unwrap_or_default()))
            .max()
            .unwrap_or(session.plan.start)
            .max(faults.over_at);
        if now.since(quiet_since) > STANDSTILL {
            verdict(world, faults, number).map_err(|what| format!("session {number}: {what}"))?;
            world.sessions[number].is_judged = true;
        }
    }
    Ok(all_over)
}

fn is_over(session: &Session) -> bool {
    let ended = |side: usize| session.sides[side].as_ref().map(|side| side.end.is_some());
    match (ended(0), ended(1)) {
        (Some(client), Some(server)) => client && server,
        // The server never knew of it.
        (Some(client), None) => client,
        _ => false,
    }
}

/// Whether a session ended as it may, given what went wrong.
fn verdict(world: &World, faults: &Faults, number: usize) -> Result<(), String> {
    let session = &world.sessions[number];
    let ends = [0, 1].map(|side| session.sides[side].as_ref().and_then(|side| side.end));
    let quits = session.plan.roles.iter().any(|role| role.quits.is_some());
    for side in [0, 1] {
        let other = ends[1 - side];
        let is_fine = match ends[side] {
            Some(End::Done) => other == Some(End::Done) || may_fail(world, faults, session) || quits,
            Some(End::Quit | End::HostGone) => true,
            Some(End::CutShort) => matches!(other, Some(End::Quit)) && has_closer(session),
            Some(End::Failed(error)) => is_legitimate(world, faults, session, error, other),
            None if session.sides[side].is_none() => side == 1 && (may_fail(world, faults, session) || quits),
            None => may_wait_for_ever(world, faults, session, number, side),
        };
        if !is_fine {
            let who = ["client", "server"][side];
            return Err(format!("the {who}'s end is {:?}, the other one's {other:?}", ends[side]));
        }
    }
    Ok(())
}

fn has_closer(session: &Session) -> bool {
    session.plan.roles.iter().any(|role| matches!(role.quits, Some((_, Quit::Close))))
}

/// Whether a host of the session restarted since it began.
fn lost_a_host(world: &World, session: &Session) -> bool {
    let lives = [session.plan.client, session.plan.server].map(|host| world.hosts[host].life);
    lives != session.lives
}

/// Whether something happened to the session that it need not survive.
fn may_fail(world: &World, faults: &Faults, session: &Session) -> bool {
    lost_a_host(world, session)
        || faults.restarts && session.sides[1].is_none()
        || faults.outage >= LONG_OUTAGE
        || faults.has_black_hole
        || faults.loses_arp
}

fn is_legitimate(
    world: &World,
    faults: &Faults,
    session: &Session,
    error: Error,
    other: Option<End>,
) -> bool {
    let may_fail = may_fail(world, faults, session);
    match error {
        Error::Reset => may_fail || other == Some(End::Quit),
        Error::TimedOut | Error::ConnectTimedOut => may_fail || other == Some(End::Quit),
        Error::Refused => lost_a_host(world, session) || faults.restarts,
        Error::Unreachable(Unreachable::FragmentationNeeded { .. }) => false,
        Error::Unreachable(_) => may_fail,
        _ => false,
    }
}

/// Whether a side need not notice that nothing will come: its peer is gone, and it has nothing to say.
fn may_wait_for_ever(world: &World, faults: &Faults, session: &Session, number: usize, side: usize) -> bool {
    let peer_is_gone = match &session.sides[1 - side] {
        Some(peer) => match peer.end {
            // Its application was done, but its stack may have failed to say so.
            Some(End::Done) => may_fail(world, faults, session),
            Some(_) => true,
            None => false,
        },
        // It never knew that the handshake was complete, and gave up.
        None => may_fail(world, faults, session),
    };
    let says_nothing =
        world.connection(number, side).is_none_or(|connection| connection.info().unacknowledged == 0);
    let could_miss_it =
        faults.disturbs || faults.outage > Duration::ZERO || faults.restarts || faults.starves;
    let peer_is_gone = peer_is_gone || lost_a_host(world, session);
    peer_is_gone && says_nothing && could_miss_it || faults.has_black_hole
}

/// All connections are over, or are ended now; then every chunk must be where it belongs.
fn settle(world: &mut World) -> Result<(), String> {
    let end = world.now + REST;
    world.run(end, |_| Ok(false))?;
    for host in &mut world.hosts {
        let local = host.local(world.now);
        host.stack.abort_all(local);
    }
    for host in 0..world.hosts.len() {
        world.poke(host)?;
    }
    let end = world.now + REST;
    world.run(end, |_| Ok(false))?;
    for (number, host) in world.hosts.iter().enumerate() {
        if host.chunks_in_use() != 0 {
            let (held, all) = (host.chunks_in_use(), host.stack.pool().chunks());
            return Err(format!("host {number} still holds {held} of {all} chunks when all is over"));
        }
        let half_open: usize = host.stack.tcp_listeners().map(|(_, listener)| listener.half_open).sum();
        if half_open > 0 {
            return Err(format!("host {number} counts {half_open} half-open connections when all is over"));
        }
        if host.stack.has_unfinished_connections() {
            return Err(format!("host {number} has connections left when all is over"));
        }
    }
    Ok(())
}

/// Every drop has a cause.
fn drops(world: &World, faults: &Faults) -> Result<(), String> {
    use DropReason as R;
    for (number, host) in world.hosts.iter().enumerate() {
        for (reason, count) in host.stack.drops().iter() {
            let is_expected = match reason {
                R::Ipv4Malformed | R::Ipv4BadChecksum | R::TcpBadChecksum | R::IcmpMalformed => {
                    faults.corrupts
                }
                // A damaged length or data offset can look like another shape before its checksum is looked at.
                R::TcpMalformed | R::Ipv4SourceRoute | R::Ipv4Truncated => faults.corrupts,
                R::EthernetTruncated
                | R::EthernetNotForUs
                | R::EthernetBadSource
                | R::EthernetUnknownType
                | R::EthernetWrongVlan
                | R::ArpMalformed
                | R::Ipv4BadSource
                | R::Ipv4UnknownProtocol
                | R::Ipv4NotForUs
                | R::FragmentMalformed
                | R::FragmentTimeout
                | R::FragmentQueueFull
                | R::UdpMalformed
                | R::UdpBadChecksum
                | R::UdpNoSocket
                | R::UdpQueueFull
                | R::TcpBadAddress
                | R::TcpNoAck
                | R::NoRoute
                | R::Fault => faults.restarts && reason == R::Ipv4NotForUs,
                _ => true,
            };
            if !is_expected {
                return Err(format!("host {number} dropped {count} frames for no cause: {}", reason.name()));
            }
        }
    }
    Ok(())
}
