//! A hostile peer against one connection, from its first SYN to the end of its TIME-WAIT.
//!
//! The peer knows all that an attacker on the path knows: the latest numbers and clocks. Half of what it sends is near to
//! them, so that it gets past the first checks. Whatever it says, its stream is one and the same: each byte is told by its
//! place, so what the application reads must be that.

use stack_user::{
    tcp::{
        Config, Segment, SeqNumber,
        options::{Options, Timestamps},
    },
    time::Duration,
    wire::tcp::Flags,
};

use super::{
    endpoint::{self, Endpoint, ISS, from_peer},
    input::{Input, tell},
};

/// The peer's first sequence number, if it is honest about it.
const IRS: SeqNumber = SeqNumber(0x7fff_ff00);

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let config = endpoint::config(&mut input);
    let mut end = match input.below(8) {
        0 | 1 => accept(config, &mut input),
        choice => {
            let mut end = Endpoint::connect(config);
            end.told.ack = IRS;
            if choice > 2 {
                handshake(&mut end, &mut input);
            }
            end
        }
    };
    while !input.is_empty() {
        step(&mut end, &mut input);
        if !input.one_in(16) {
            end.transmit();
        }
    }
    end.finish();
}

/// A passive open, up to the SYN with ACK; what follows is likely to complete the handshake.
fn accept(config: Config, input: &mut Input<'_>) -> Endpoint {
    let clock = Timestamps { value: 1_000_000, echo: 0 };
    let options = syn_options(Some(clock), input);
    let mut syn = from_peer(Flags::SYN, IRS, SeqNumber(0), options);
    syn.window = window(input);
    let mut end = Endpoint::accept(config, &syn);
    end.transmit();
    end
}

/// An honest handshake, or a simultaneous one, with any options.
fn handshake(end: &mut Endpoint, input: &mut Input<'_>) {
    end.transmit();
    end.complete_all();
    end.pass(Duration::from_millis(input.below(256) as u64));
    let options = syn_options(timestamps(end, input), input);
    let mut segment = from_peer(Flags::SYN.with(Flags::ACK), IRS, ISS + 1, options);
    segment.window = window(input);
    if input.one_in(4) {
        segment.flags = Flags::SYN;
        end.receive(&segment, 0);
        end.transmit();
        segment.flags = input.pick(&[Flags::ACK, Flags::SYN.with(Flags::ACK)]);
        segment.seq = if segment.syn() { IRS } else { IRS + 1 };
        segment.options.timestamps = timestamps(end, input);
    }
    end.receive(&segment, 0);
    end.transmit();
}

fn step(end: &mut Endpoint, input: &mut Input<'_>) {
    match input.below(32) {
        0 => drop(end.pass_to_timer()),
        1 => end.pass(Duration::from_millis(input.byte().into())),
        2 => {
            let seconds = input.pick(&[1, 30, 70, 400, 86_400, 30 * 86_400]);
            end.pass(Duration::from_secs(seconds));
        }
        3 => end.complete(input.below(8)),
        4 => end.complete_all(),
        5 => end.squeeze(input.pick(&[0, 1, 20, 60, 100])),
        6 => end.disturb(input),
        7 if input.one_in(4) => end.shutdown(),
        8 if input.one_in(8) => end.close(),
        9 if input.one_in(16) => end.abort(),
        10 | 11 => end.read(input.pick(&[0, 1, 100, 1460, 10_000])),
        12..=14 => end.write(input.pick(&[0, 1, 10, 500, 1460, 3000, 10_000])),
        15 if input.one_in(4) => end.read_in_place(),
        15 => end.write_in_place(input.pick(&[0, 1, 500, 1460])),
        _ => {
            let (segment, len) = segment(end, input);
            end.receive(&segment, len);
        }
    }
}

/// A segment: each of its parts is what it should be, near it, or anything.
fn segment(end: &Endpoint, input: &mut Input<'_>) -> (Segment, usize) {
    let told = end.told;
    let len = match input.below(8) {
        0..=2 => 0,
        3 => 1,
        4 => input.byte().into(),
        5 => 1460,
        _ => input.below(3500),
    };
    let seq = match input.below(8) {
        0..=3 => told.ack,
        4 => told.ack + input.below(6000),
        5 => told.ack - input.below(3000),
        6 => told.edge + input.below(4) - input.below(1500),
        _ => SeqNumber(input.u32()),
    };
    let ack = match input.below(8) {
        0..=3 => told.nxt,
        4 => told.nxt - input.below(6000),
        5 => told.nxt - input.pick(&[1, 2, 1000, 1448, 1460, 2920]),
        6 => told.nxt + input.below(3),
        _ => SeqNumber(input.u32()),
    };
    let flags = match input.below(8) {
        0..=4 => Flags::ACK,
        5 => Flags::ACK.with(Flags::PSH).with(Flags::FIN),
        6 => input.pick(&[Flags::SYN, Flags::SYN.with(Flags::ACK), Flags::RST, Flags::RST.with(Flags::ACK)]),
        _ => Flags(input.byte()),
    };
    let options = if flags.contains(Flags::SYN) {
        syn_options(timestamps(end, input), input)
    } else {
        options(end, input)
    };
    let mut segment = from_peer(flags, seq, ack, options);
    segment.window = window(input);
    (segment, len)
}

fn window(input: &mut Input<'_>) -> u16 {
    match input.below(8) {
        0 => 0,
        1 => input.byte().into(),
        2 => input.u16(),
        _ => input.pick(&[1460, 5000, 65_535]),
    }
}

fn timestamps(end: &Endpoint, input: &mut Input<'_>) -> Option<Timestamps> {
    let clock = end.now.as_millis() as u32;
    match input.below(8) {
        0 => None,
        1 => Some(Timestamps { value: input.u32(), echo: input.u32() }),
        2 => Some(Timestamps { value: clock.wrapping_sub(input.byte().into()), echo: end.told.clock }),
        _ => Some(Timestamps { value: clock, echo: end.told.clock }),
    }
}

fn syn_options(timestamps: Option<Timestamps>, input: &mut Input<'_>) -> Options {
    let choice = input.byte();
    if choice == 255 {
        return Options::parse(input.bytes(40));
    }
    let timestamps = timestamps.filter(|_| choice & 1 == 0);
    Options {
        mss: (choice & 2 == 0).then(|| input.pick(&[1460, 1000, 536, 48, 0, 65_535])),
        window_scale: (choice & 4 == 0).then(|| input.pick(&[0, 1, 7, 14])),
        sack_permitted: choice & 8 == 0,
        timestamps,
        ..Options::default()
    }
}

fn options(end: &Endpoint, input: &mut Input<'_>) -> Options {
    if input.below(32) == 31 {
        let options = Options::parse(input.bytes(40));
        tell(|| format!("option soup: {options:?}"));
        return options;
    }
    let mut options = Options { timestamps: timestamps(end, input), ..Options::default() };
    for _ in 0..input.below(8).saturating_sub(3) {
        let right = end.told.nxt - input.below(6000) + input.below(4);
        options.sack.push(right - input.pick(&[1, 1000, 1448, 1460, 4000, 0]), right);
    }
    options
}
