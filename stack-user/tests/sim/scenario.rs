//! From a seed to a world: who there is, how they are joined, what they want from each other, and what goes wrong.

use std::net::Ipv4Addr;

use stack_user::{
    rng::Rng,
    tcp,
    time::{Duration, Instant},
};

use crate::{
    app::{Quit, Role},
    draw::Draw,
    host::{Clock, Host, Make, Nic},
    link::{Bursts, Link, Quality},
    network::{Middlebox, Network, Port, Uplink},
    oracle::Faults,
    world::{Change, Plan, World},
};

/// Payload bytes of a scenario at most, and segments. More, and a seed takes long; fewer, and windows never grow.
const MAX_BYTES: u64 = 6 << 20;
const MAX_SEGMENTS: u64 = 12_000;

/// What segments shrink to on a path that swallows long ones without a word (RFC 8899 §5.1.2). A narrower path may
/// swallow these, too.
const BASE_MTU: u16 = 1_200;

/// When the first connections start: addresses are claimed by then.
const FIRST_START: Duration = Duration::from_secs(1);

/// What a seed stands for.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    makes: Vec<Make>,
    sites: usize,
    /// The link of each host to its switch and back, and of each site to the core and back.
    access: Vec<[Quality; 2]>,
    uplinks: Vec<[Quality; 2]>,
    middlebox: Middlebox,
    tells_mtu: bool,
    tells_down: bool,
    plans: Vec<Plan>,
    changes: Vec<(Instant, Change)>,
    pub(crate) faults: Faults,
}

impl Scenario {
    /// The scenario of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::from_seed(seed);
        let sites = rng.pick(&[1, 1, 1, 2, 2, 2, 2, 3, 4, 5]);
        let hosts = match rng.below(100) {
            0..35 => 2,
            35..70 => rng.between(2, 5),
            70..96 => rng.between(6, 20),
            _ => rng.between(21, 100),
        } as usize;
        let makes: Vec<_> = (0..hosts).map(|host| make(&mut rng, sites, host)).collect();
        let (access, uplinks) = qualities(&mut rng, hosts, sites);
        let mut scenario = Self {
            faults: Faults::default(),
            middlebox: middlebox(&mut rng),
            tells_mtu: rng.chance(0.8),
            tells_down: rng.chance(0.5),
            plans: Vec::new(),
            changes: Vec::new(),
            makes,
            sites,
            access,
            uplinks,
        };
        scenario.draw_plans(&mut rng);
        scenario.draw_changes(&mut rng);
        scenario.sum_up();
        scenario
    }

    /// The world at its beginning.
    pub(crate) fn build(&self, seed: u64) -> World {
        let mut rng = Rng::from_seed(!seed);
        let hosts = self.makes.iter().enumerate();
        let hosts = hosts
            .map(|(number, make)| Host::new(Instant::ZERO, Network::mac(number), make.clone(), rng.fork()))
            .collect();
        let qualities = self.access.iter().chain(&self.uplinks).flatten();
        let links = qualities.map(|quality| Link::new(quality.clone(), rng.fork())).collect();
        let port = |(number, make): (usize, &Make)| Port {
            site: usize::from(make.address.octets()[2]),
            address: make.address,
            up: 2 * number,
            down: 2 * number + 1,
        };
        let ports: Vec<_> = self.makes.iter().enumerate().map(port).collect();
        let first = 2 * ports.len();
        let uplinks =
            (0..self.sites).map(|site| Uplink { out: first + 2 * site, back: first + 2 * site + 1 });
        let mut network = Network::new(links, ports, uplinks.collect());
        network.middlebox = self.middlebox;
        network.tells_mtu = self.tells_mtu;
        network.tells_down = self.tells_down;
        let mut world = World::new(hosts, network, self.plans.clone(), rng);
        for &(at, change) in &self.changes {
            world.plan(at, change);
        }
        world
    }

    fn draw_plans(&mut self, rng: &mut Rng) {
        let hosts = self.makes.len() as u64;
        let count = match rng.below(10) {
            0..4 => 1,
            4..8 => rng.between(2, 5),
            _ => rng.between(hosts.min(6), hosts.clamp(6, 40)),
        };
        let mss = self.makes.iter().map(|make| make.mtu - 40).min().unwrap_or(1_460);
        // Timestamps and other options take from what is left.
        let budget = MAX_BYTES.min(MAX_SEGMENTS * u64::from(mss.saturating_sub(12).max(1)));
        let most = (budget / count).max(1);
        let each = if rng.chance(0.25) { most } else { rng.magnitude(1, most) };
        let mut start = Instant::ZERO + FIRST_START;
        for _ in 0..count {
            let client = rng.below(hosts) as usize;
            let server = (client + 1 + rng.below(hosts - 1) as usize) % hosts as usize;
            let roles = roles(rng, each);
            self.plans.push(Plan { client, server, start, roles });
            start += rng.millis(0, 2_000);
        }
    }

    fn draw_changes(&mut self, rng: &mut Rng) {
        if rng.chance(0.6) {
            return;
        }
        let mut at = Instant::ZERO + FIRST_START;
        for _ in 0..rng.between(1, 3) {
            at += rng.millis(1, 5_000);
            self.draw_change(rng, at);
        }
    }

    fn draw_change(&mut self, rng: &mut Rng, at: Instant) {
        let host = rng.below(self.makes.len() as u64) as usize;
        let links = 2 * (self.access.len() + self.uplinks.len());
        let link = rng.below(links as u64) as usize;
        let mut lasts = rng.millis(1, 20_000);
        match rng.below(10) {
            0..4 => {
                if rng.chance(0.1) {
                    lasts = rng.millis(60_000, 400_000);
                }
                self.changes.push((at, Change::Link { link, is_up: false }));
                self.changes.push((at + lasts, Change::Link { link, is_up: true }));
            }
            4..6 => self.changes.push((at, Change::Stall { host, time: lasts })),
            6..8 => self.changes.push((at, Change::Jump { host, time: lasts })),
            8 if self.sites > 1 => {
                let link = 2 * self.access.len() + rng.below(2 * self.sites as u64) as usize;
                let mtu = rng.between(600, 1_500) as u16;
                self.changes.push((at, Change::Mtu { link, mtu }));
                return;
            }
            _ => {
                self.changes.push((at, Change::Restart { host }));
                self.faults.restarts = true;
            }
        }
        self.faults.outage = self.faults.outage.max(lasts);
    }

    /// The MTU of the narrowest link that there ever is.
    fn narrowest(&self) -> u16 {
        let links = self.access.iter().chain(&self.uplinks).flatten().map(|quality| quality.mtu);
        let changed = self.changes.iter().filter_map(|(_, change)| match change {
            Change::Mtu { mtu, .. } => Some(*mtu),
            _ => None,
        });
        links.chain(changed).min().unwrap_or(u16::MAX)
    }

    /// What all of that can lead to.
    fn sum_up(&mut self) {
        let qualities = || self.access.iter().chain(&self.uplinks).flatten();
        self.faults.disturbs = qualities().any(Quality::is_faulty);
        self.faults.corrupts = qualities().any(|quality| quality.corrupt > 0.0);
        self.faults.loses_arp = qualities().any(|quality| !quality.spares_arp);
        self.faults.has_black_hole = !self.tells_mtu && self.narrowest() < BASE_MTU;
        self.faults.starves = self.makes.iter().any(|make| make.nic.fill_ring < 64);
        let ends = self.changes.iter().map(|&(at, change)| match change {
            Change::Stall { time, .. } | Change::Jump { time, .. } => at + time,
            _ => at,
        });
        self.faults.over_at = ends.max().unwrap_or_default();
        // ARP is not spared by an outage: a neighbour that is looked for meanwhile is not found; and if the clock jumps
        // meanwhile, its time is over.
        self.faults.loses_arp |= self.changes.iter().any(|(_, change)| !matches!(change, Change::Mtu { .. }));
    }
}

fn make(rng: &mut Rng, sites: usize, host: usize) -> Make {
    let site = host % sites;
    let number = 10 + host / sites;
    let mtu = match rng.below(20) {
        0..14 => 1_500,
        14..16 => rng.between(576, 1_500) as u16,
        16 => rng.between(1_500, 3_800) as u16,
        17 => rng.between(128, 576) as u16,
        18 => 68,
        _ => rng.pick(&[1_280, 1_400, 1_492, 576]),
    };
    let chunks = rng.pick(&[192, 256, 512, 512, 1_024, 2_048, 4_096]);
    Make {
        address: Ipv4Addr::new(10, 0, site as u8, number as u8),
        gateway: (sites > 1).then(|| Network::router_address(site)),
        mtu,
        chunks,
        tcp: config(rng),
        nic: nic(rng, chunks),
        clock: clock(rng),
        backlog: rng.pick(&[1, 2, 8, 64, 64, 128]),
    }
}

fn config(rng: &mut Rng) -> tcp::Config {
    let mut config = tcp::Config { nodelay: rng.chance(0.2), ..tcp::Config::default() };
    if rng.chance(0.3) {
        config.recv_buffer = rng.magnitude(1_024, 1 << 20) as usize;
    }
    if rng.chance(0.3) {
        config.send_buffer = rng.magnitude(1_024, 1 << 20) as usize;
    }
    config.congestion = rng.pick(tcp::congestion::Algorithm::ALL);
    config
}

fn nic(rng: &mut Rng, chunks: u32) -> Nic {
    let plain = rng.chance(0.5);
    let delay = |rng: &mut Rng, most: u64| match plain {
        true => Duration::ZERO,
        false => Duration::from_micros(rng.pick(&[0, most / 10, most])),
    };
    Nic {
        tx_ring: if plain { 512 } else { rng.magnitude(4, 256) as usize },
        tx_delay: delay(rng, 500),
        completion_delay: delay(rng, 5_000),
        fill_ring: if plain {
            chunks as usize / 2
        } else {
            rng.magnitude(16, u64::from(chunks) / 2) as usize
        },
        interrupt_delay: delay(rng, 300),
    }
}

fn clock(rng: &mut Rng) -> Clock {
    /// Milliseconds after which a timestamp clock of 32 bits starts again.
    const WRAPS: u64 = 1 << 32;
    let origin = match rng.below(4) {
        0 => WRAPS - rng.between(0, 30_000),
        1 => 0,
        _ => rng.below(4 * WRAPS),
    };
    // Crystals are right to some 100 ppm.
    let skew = if rng.chance(0.5) { 0 } else { rng.between(0, 400) as i64 - 200 };
    Clock { origin: Instant::from_millis(origin), skew, jumped: Duration::ZERO }
}

/// The links of hosts, and of sites. What goes wrong does so on either the ones or the others, so that a frame does not
/// meet it four times on its way.
fn qualities(rng: &mut Rng, hosts: usize, sites: usize) -> (Vec<[Quality; 2]>, Vec<[Quality; 2]>) {
    let perfect = || [Quality::perfect(), Quality::perfect()];
    let mut access: Vec<_> = (0..hosts).map(|_| perfect()).collect();
    let mut uplinks: Vec<_> = (0..sites).map(|_| perfect()).collect();
    let bad = if sites > 1 { &mut uplinks } else { &mut access };
    let is_bad = rng.chance(0.7);
    let is_alike = rng.chance(0.5);
    let first = [quality(rng, is_bad), quality(rng, is_bad)];
    for pair in bad {
        let [out, back] = &first;
        *pair =
            if is_alike { [out.clone(), back.clone()] } else { [quality(rng, is_bad), quality(rng, is_bad)] };
    }
    // Routers tell of a narrow link, so that one is found on the way.
    if sites > 1 && rng.chance(0.2) {
        for quality in uplinks.iter_mut().flatten() {
            quality.mtu = rng.between(600, 1_500) as u16;
        }
    }
    (access, uplinks)
}

fn quality(rng: &mut Rng, is_bad: bool) -> Quality {
    let mut quality = Quality { delay: rng.millis(0, 150), ..Quality::perfect() };
    if rng.chance(0.7) {
        quality.rate = rng.magnitude(256_000, 1_000_000_000);
        let product = quality.rate / 8 * (2 * quality.delay.as_micros() as u64).max(1_000) / 1_000_000;
        quality.queue = match rng.below(4) {
            0 => rng.between(3_000, 20_000) as usize,
            1 => (2 * product).clamp(6_000, 4 << 20) as usize,
            2 => 1 << 20,
            _ => product.clamp(6_000, 1 << 20) as usize,
        };
        if rng.chance(0.2) {
            quality.mark_above = Some(quality.queue / 3);
        }
    }
    quality.bleaches = rng.chance(0.1);
    if !is_bad {
        return quality;
    }
    if rng.chance(0.5) {
        quality.loss = rng.rate(0.000_1, 0.03);
    }
    if rng.chance(0.2) {
        let (begin, end) = (rng.rate(0.000_5, 0.01), rng.rate(0.05, 0.5));
        quality.bursts = Some(Bursts { begin, end, loss: rng.rate(0.3, 1.0) });
    }
    if rng.chance(0.3) {
        quality.reorder = rng.rate(0.001, 0.2);
        quality.late = rng.millis(1, 100);
    }
    if rng.chance(0.25) {
        quality.duplicate = rng.rate(0.001, 0.1);
    }
    if rng.chance(0.2) {
        quality.corrupt = rng.rate(0.000_1, 0.01);
    }
    quality
}

fn middlebox(rng: &mut Rng) -> Middlebox {
    if rng.chance(0.75) {
        return Middlebox::default();
    }
    Middlebox {
        strips_mss: rng.chance(0.2),
        strips_window_scale: rng.chance(0.4),
        strips_sack: rng.chance(0.4),
        strips_timestamps: rng.chance(0.4),
        clamps_mss: if rng.chance(0.3) { rng.between(88, 1_400) as u16 } else { 0 },
        widens_windows: rng.chance(0.3),
    }
}

/// What the client does, and what the server does.
fn roles(rng: &mut Rng, bytes: u64) -> [Role; 2] {
    let part = |rng: &mut Rng| if rng.chance(0.3) { bytes } else { rng.magnitude(0, bytes) };
    let (up, down) = (part(rng), part(rng));
    let mut roles = match rng.below(10) {
        // Bulk in one direction, or both.
        0 => [Role::eager(bytes, 0), Role::eager(0, bytes)],
        1 => [Role::eager(0, bytes), Role::eager(bytes, 0)],
        2..5 => [Role::eager(up, down), Role::eager(down, up)],
        // The server answers when it has the whole request.
        5..7 => {
            let server = Role { writes_after: up, ..Role::eager(down, up) };
            [Role::eager(up, down), server]
        }
        // Echo.
        _ => [Role::eager(bytes, bytes), Role { echoes: true, ..Role::eager(bytes, bytes) }],
    };
    for role in &mut roles {
        role.half_closes = rng.chance(0.6);
        role.nodelay = rng.chance(0.2);
        habits(rng, role, bytes);
    }
    roles
}

/// An application's own ways.
fn habits(rng: &mut Rng, role: &mut Role, bytes: u64) {
    let total = role.out + role.wanted;
    if rng.chance(0.4) {
        role.write_size = rng.magnitude(1, 16 << 10) as usize;
    }
    if rng.chance(0.4) {
        role.read_size = rng.magnitude(1, 16 << 10) as usize;
    }
    // Not so slow that it takes more than some minutes, nor so often that it takes us long.
    let gap = |rng: &mut Rng, size: usize| {
        let calls = 1 + total / (size as u64 / 2).max(1);
        Duration::from_micros(rng.magnitude(0, (120_000_000 / calls).max(1)))
    };
    if rng.chance(0.15) && bytes / (role.read_size as u64) < 5_000 {
        role.read_gap = gap(rng, role.read_size);
    }
    if rng.chance(0.15) && bytes / (role.write_size as u64) < 5_000 {
        role.write_gap = gap(rng, role.write_size);
    }
    // Single bytes by the million would be our own time.
    let least = (total / 20_000).max(1) as usize;
    role.write_size = role.write_size.max(least).min(16 << 10);
    role.read_size = role.read_size.max(least).min(16 << 10);
    if rng.chance(0.15) {
        role.rest = Some((rng.below(total + 1), rng.millis(1, 100_000)));
    }
    if rng.chance(0.06) {
        role.quits = Some((rng.below(total + 1), rng.pick(&[Quit::Abort, Quit::Close])));
    }
}
