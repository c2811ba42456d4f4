//! What is done to one of many connections, in parts that can be measured, each by itself.

use stack_user::{
    frame::{FramePool, RxFrame},
    rng::Rng,
    stack::TcpId,
    tcp::KeepAlive,
    time::Duration,
};

use crate::crowd::Crowd;

/// When a keep-alive is due that [`set_timers`] asks for: so soon that no connection has come to rest.
const IDLE: Duration = Duration::from_millis(500);

/// More than a tick of the timers.
const TICK: Duration = Duration::from_millis(20);

/// Some of the connections, in no order, each as likely as the others.
pub(crate) fn some(all: &[TcpId], some: usize) -> Vec<TcpId> {
    let mut rng = Rng::from_seed(7);
    let mut shuffled = all.to_vec();
    for i in 0..some.min(all.len()) {
        shuffled.swap(i, i + rng.below((all.len() - i) as u64) as usize);
    }
    shuffled.truncate(some);
    shuffled
}

/// Has clients say something, and hands out the frames as the server's device would.
pub(crate) fn questions(crowd: &mut Crowd, clients: &[TcpId], frames: &mut Vec<RxFrame>) {
    for &id in clients {
        assert_eq!(crowd.client.tcp_write(crowd.now, id, b"?"), Ok(1));
        while let Some(frame) = crowd.client.poll_transmit(crowd.now) {
            let free = crowd.server.pool_mut().allocate().expect("a free chunk");
            frames.push(crowd.server.pool_mut().receive(free, crowd.client.pool().tx_bytes(&frame)));
            crowd.client.handle_completion(crowd.now, frame.into_completed());
        }
    }
}

/// The server takes the frames in.
#[inline(never)]
pub(crate) fn receive(crowd: &mut Crowd, frames: &mut Vec<RxFrame>) {
    crowd.server.handle_burst(crowd.now, frames);
}

/// Sets a timer of each of these connections.
#[inline(never)]
pub(crate) fn set_timers(crowd: &mut Crowd, clients: &[TcpId]) {
    let keepalive = Some(KeepAlive { idle: IDLE, ..KeepAlive::default() });
    clients.iter().for_each(|&id| crowd.client.tcp_set_keepalive(crowd.now, id, keepalive));
}

/// Their time comes.
pub(crate) fn wait(crowd: &mut Crowd) {
    crowd.now += IDLE + TICK;
}

/// They expire: a keep-alive is due on each of these connections.
#[inline(never)]
pub(crate) fn expire(crowd: &mut Crowd) {
    crowd.client.handle_timeout(crowd.now);
}

/// Nothing is due any more, nor sent.
pub(crate) fn forget_timers(crowd: &mut Crowd, clients: &[TcpId]) {
    clients.iter().for_each(|&id| crowd.client.tcp_set_keepalive(crowd.now, id, None));
}
