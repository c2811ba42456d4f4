//! What is kept of loss recovery while nothing is in flight.

use super::{
    Counts, DeliveryRate, Frto, NewReno, Phase, Rack, Recovery, order::Order, scoreboard::Scoreboard,
    tlp::Tlp, undo::Undo,
};
use crate::{
    tcp::delivery_rate,
    time::{Duration, Nanos},
};

/// A recovery that has nothing to do, in the middle of a connection whose peer has acknowledged all.
#[derive(Clone, Debug)]
pub struct Rest {
    /// RACK.rtt, once something was delivered.
    rtt: Option<Nanos>,
    /// RACK.reo_wnd.
    reo_wnd: Nanos,
    /// The delivery rate to be shown.
    rate: Option<(u64, bool)>,
    /// The application limits the delivery rate from here on.
    app_limited: bool,
    /// RecoveryPoint is SND.UNA: duplicates of what was just repaired are no news.
    just_repaired: bool,
    /// Of a connection that has lost something, or seemed to.
    past: Option<Box<Past>>,
}

/// What most connections have nothing of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Past {
    tlp: Tlp,
    undo: Undo,
    counts: Counts,
    marked: u64,
    reordering_seen: bool,
    steps: u32,
    persist: u32,
    delivered: u64,
    app_limited_until: Option<u64>,
}

impl Past {
    /// That of a connection which has delivered so much, and nothing out of the ordinary has come of it.
    fn none(delivered: u64, app_limited: bool) -> Self {
        let Rack { reordering_seen, steps, persist, .. } = Rack::default();
        Self {
            tlp: Tlp::default(),
            undo: Undo::default(),
            counts: Counts { delivered, ..Counts::default() },
            marked: 0,
            reordering_seen,
            steps,
            persist,
            delivered,
            app_limited_until: app_limited.then_some(delivered),
        }
    }
}

impl Recovery {
    /// What is left of it when nothing is in flight and nothing is to be sent again; SND.UNA and SND.NXT are both `una`.
    /// `None` while something goes on.
    ///
    /// What is compared with numbers of segments in flight starts anew: their transmissions can be counted from the
    /// beginning, and stream offsets up to `una` are as good as 0.
    pub fn rest(&self, una: u64) -> Option<Rest> {
        let Self {
            phase,
            point,
            must_retransmit,
            reneged: _,
            timeout_order: _,
            reduced_order: _,
            order: _,
            scoreboard,
            rack,
            tlp,
            newreno,
            prr: _,
            frto,
            undo,
            rate,
            reorder_at,
            ack: _,
            at_rest: _,
            counts,
        } = self;
        let is_quiet = *phase == Phase::Open
            && !must_retransmit
            && *newreno == NewReno::default()
            && *frto == Frto::Off
            && !tlp.is_due()
            && rack.latest.is_none()
            && scoreboard.losses.are_told()
            && reorder_at.is_none();
        let delivery_rate::Rest { delivered, app_limited_until, shown } = rate.rest().filter(|_| is_quiet)?;
        let past = Past {
            tlp: tlp.clone(),
            undo: undo.clone(),
            counts: counts.clone(),
            marked: scoreboard.marked(),
            reordering_seen: rack.reordering_seen,
            steps: rack.steps,
            persist: rack.persist,
            delivered,
            app_limited_until,
        };
        let app_limited = app_limited_until.is_some();
        Some(Rest {
            rtt: (rack.delivered > 0).then(|| rack.rtt.into()),
            reo_wnd: rack.reo_wnd.into(),
            rate: shown,
            app_limited,
            just_repaired: *point > 0 && *point == una,
            past: (past != Past::none(una, app_limited)).then(|| Box::new(past)),
        })
    }

    /// Goes on after a rest.
    pub fn resume(rest: &Rest, una: u64) -> Self {
        let past = rest.past.as_deref().cloned().unwrap_or_else(|| Past::none(una, rest.app_limited));
        // What was delivered was sent before all that is to come.
        let transmissions = u64::from(rest.rtt.is_some());
        Self {
            point: if rest.just_repaired { una } else { 0 },
            order: Order::resume(transmissions),
            scoreboard: Scoreboard::resume(past.marked),
            rack: Rack {
                rtt: rest.rtt.map_or(Duration::ZERO, Duration::from),
                delivered: transmissions,
                reordering_seen: past.reordering_seen,
                reo_wnd: rest.reo_wnd.into(),
                steps: past.steps,
                persist: past.persist,
                ..Rack::default()
            },
            tlp: past.tlp,
            undo: past.undo,
            rate: DeliveryRate::resume(delivery_rate::Rest {
                delivered: past.delivered,
                app_limited_until: past.app_limited_until,
                shown: rest.rate,
            }),
            counts: past.counts,
            ..Self::default()
        }
    }
}
