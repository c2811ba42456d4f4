//! The map of claims, and the index over it that the program looks at first.
//!
//! Several programs may use the same maps, and one of them may be killed at any instruction. So the map alone says what is
//! claimed, with the kernel as the one who decides between two who want an address; the index is made to say the same
//! after each change, from what is in the map. Nobody waits for anybody: who has written a place looks again whether it
//! says what the map says, so that the last who writes it leaves it right, whoever else changed the map meanwhile. Two who
//! make claims of the same place at the same time may hide each other's for the microseconds in between: those frames go to
//! the kernel, as they did before. A claim that was there before is found all the time.

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use stack_common::{
    abi::{Claim, ClaimKey},
    index::{INDEX_LEN, Slot},
};

use super::error::{ProgramError, os_error};

/// How often a place is written until it says what the map says.
///
/// Each time more takes another program that has changed the same place within microseconds. Afterwards the place refers to
/// the map, which is right, and only slower.
const ATTEMPTS: usize = 8;

/// BPF_NOEXIST: nothing is replaced.
pub(super) const NO_EXIST: u64 = 1;

pub(super) struct Claims {
    map: HashMap<MapData, [u32; ClaimKey::WORDS], [u32; Claim::WORDS]>,
    index: Array<MapData, [u32; Slot::WORDS]>,
}

impl Claims {
    pub(super) fn new(map: Map, index: Map) -> Result<Self, ProgramError> {
        let map = map.try_into().map_err(ProgramError::map)?;
        Ok(Self { map, index: index.try_into().map_err(ProgramError::map)? })
    }

    pub(super) fn get(&self, key: ClaimKey) -> Option<Claim> {
        self.map.get(&key.to_words(), 0).ok().map(Claim::from_words)
    }

    pub(super) fn all(&self) -> Result<Vec<(ClaimKey, Claim)>, ProgramError> {
        let read = |entry: Result<_, MapError>| {
            let (key, claim) = entry.map_err(ProgramError::map)?;
            Ok((ClaimKey::from_words(key), Claim::from_words(claim)))
        };
        self.map.iter().map(read).collect()
    }

    /// Adds a claim. False if there is one on the address already.
    pub(super) fn add(&mut self, key: ClaimKey, claim: Claim) -> Result<bool, ProgramError> {
        match self.map.insert(key.to_words(), claim.to_words(), NO_EXIST) {
            Err(error) if os_error(&error) == Some(libc::EEXIST) => return Ok(false),
            inserted => inserted.map_err(ProgramError::map)?,
        }
        let shown = self.show(key.place());
        if shown.is_err() {
            // There is an error to tell already. Should this fail too, the claim goes with whoever it is of.
            let _ = self.map.remove(&key.to_words());
        }
        shown.map(|()| true)
    }

    /// Replaces a claim.
    pub(super) fn replace(&mut self, key: ClaimKey, claim: Claim) -> Result<(), ProgramError> {
        // Killed from here on, we leave a place that refers to the map.
        self.hide(key.place())?;
        let replaced = self.map.insert(key.to_words(), claim.to_words(), 0).map_err(ProgramError::map);
        replaced.and(self.show(key.place()))
    }

    /// Removes a claim. An error if there is none.
    pub(super) fn remove(&mut self, key: ClaimKey) -> Result<(), ProgramError> {
        self.hide(key.place())?;
        let removed = self.map.remove(&key.to_words()).map_err(ProgramError::map);
        // What else has the place gets it back, whether or not there was something to remove.
        let shown = self.show(key.place());
        removed.and(shown)
    }

    /// Corrects what somebody who was killed in the middle of a change has left of the index.
    pub(super) fn correct(&mut self) -> Result<(), ProgramError> {
        let mut slots = vec![Slot::NOTHING; INDEX_LEN];
        for (key, claim) in self.all()? {
            let slot = &mut slots[key.place() as usize];
            *slot = slot.with(key, claim);
        }
        for (place, slot) in (0..).zip(slots) {
            if self.slot(place)? != slot {
                self.show(place)?;
            }
        }
        Ok(())
    }

    /// Has a place refer to the map.
    fn hide(&mut self, place: u32) -> Result<(), ProgramError> {
        let asking = self.slot(place)?.asking();
        self.write(place, asking)
    }

    /// Has a place say what the map says.
    fn show(&mut self, place: u32) -> Result<(), ProgramError> {
        for _ in 0..ATTEMPTS {
            // The program may look in the middle of a write. One changes the state only, with the rest in place.
            self.hide(place)?;
            let slot = self.expected(place)?;
            self.write(place, slot.asking())?;
            self.write(place, slot)?;
            if self.slot(place)? == slot && self.expected(place)? == slot {
                return Ok(());
            }
        }
        self.hide(place)
    }

    /// What a place is to say.
    fn expected(&self, place: u32) -> Result<Slot, ProgramError> {
        let mut slot = Slot::NOTHING;
        for key in self.map.keys() {
            let key = ClaimKey::from_words(key.map_err(ProgramError::map)?);
            if key.place() != place {
                continue;
            }
            // One that is gone by now was in nobody's way.
            if let Some(claim) = self.get(key) {
                slot = slot.with(key, claim);
            }
        }
        Ok(slot)
    }

    fn slot(&self, place: u32) -> Result<Slot, ProgramError> {
        self.index.get(&place, 0).map(Slot::from_words).map_err(ProgramError::map)
    }

    fn write(&mut self, place: u32, slot: Slot) -> Result<(), ProgramError> {
        self.index.set(place, slot.to_words(), 0).map_err(ProgramError::map)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::Ipv4Addr,
        os::fd::{AsFd as _, OwnedFd},
        sync::atomic::{AtomicBool, Ordering::Relaxed},
        thread,
        time::{Duration, Instant},
    };

    use proptest::{prelude::*, test_runner::TestRunner};
    use stack_common::{abi, index::Answer};

    use super::*;

    /// The maps of a program of our own, from which any number of users have them. None if the kernel doesn't let us.
    fn maps(test: &str) -> Option<[OwnedFd; 2]> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIP claims::{test}: making maps needs root");
            return None;
        }
        let object = super::super::load(None).expect("the object");
        let fd = |name| match object.map(name) {
            Some(Map::HashMap(map) | Map::Array(map)) => {
                map.fd().as_fd().try_clone_to_owned().expect("a copy")
            }
            _ => panic!("no map {name}"),
        };
        Some([fd(abi::CLAIMS), fd(abi::INDEX)])
    }

    fn user([claims, index]: &[OwnedFd; 2]) -> Claims {
        let map = |fd: &OwnedFd| {
            let data = MapData::from_fd(fd.try_clone().expect("a copy")).expect("a map");
            Map::from_map_data(data).expect("its type")
        };
        Claims::new(map(claims), map(index)).expect("their layouts")
    }

    fn soon(mut is_true: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_true() {
            assert!(start.elapsed() < Duration::from_secs(5), "waited in vain");
        }
    }

    /// Keys of three places, four of each.
    fn keys() -> Vec<ClaimKey> {
        let key = |n: u32| ClaimKey::new(Ipv4Addr::from(0x0a00_0000 + n).into(), (n % 3) as u16);
        let of = |place| (0..).map(key).filter(move |key: &ClaimKey| key.place() == place).take(4);
        [0, 7, INDEX_LEN as u32 - 1].into_iter().flat_map(of).collect()
    }

    fn claim(n: u16) -> Claim {
        if n == 0 { Claim::WHOLE } else { Claim::ports(&[(n, n)]).expect("a range") }
    }

    /// What the program finds: in the index, or else in the map.
    fn found(claims: &Claims, key: ClaimKey) -> Option<Claim> {
        match claims.slot(key.place()).expect("a slot").find(&key) {
            Answer::Nothing => None,
            Answer::Claim(claim) => Some(*claim),
            Answer::Ask => claims.get(key),
        }
    }

    #[test]
    fn the_program_finds_what_is_claimed() {
        let Some(maps) = maps("the_program_finds_what_is_claimed") else { return };
        let keys = keys();
        // Who does it, what, to which key, and with what claim.
        let step = (0..2_usize, 0..3_u8, 0..keys.len(), 0..3_u16);
        let check = |steps: Vec<(usize, u8, usize, u16)>| {
            let mut users = [user(&maps), user(&maps)];
            let mut model = std::collections::HashMap::new();
            for (who, what, key, n) in steps {
                let (user, key) = (&mut users[who], keys[key]);
                match (what, model.contains_key(&key)) {
                    (0, true) => prop_assert!(!user.add(key, claim(n)).expect("the kernel lets us")),
                    (0, false) => {
                        prop_assert!(user.add(key, claim(n)).expect("the kernel lets us"));
                        model.insert(key, claim(n));
                    }
                    (1, true) => {
                        user.replace(key, claim(n)).expect("the kernel lets us");
                        model.insert(key, claim(n));
                    }
                    (1, false) => {}
                    (_, is_there) => {
                        prop_assert_eq!(user.remove(key).is_ok(), is_there);
                        model.remove(&key);
                    }
                }
                for key in &keys {
                    prop_assert_eq!(found(&users[0], *key), model.get(key).copied());
                    let place = key.place();
                    let mut slot = Slot::NOTHING;
                    for (key, claim) in model.iter().filter(|(key, _)| key.place() == place) {
                        slot = slot.with(*key, *claim);
                    }
                    prop_assert_eq!(users[0].slot(place).expect("a slot"), slot, "no better than that");
                }
            }
            for key in model.keys() {
                users[0].remove(*key).expect("it is there");
            }
            Ok(())
        };
        let mut runner = TestRunner::new(ProptestConfig { cases: 64, ..ProptestConfig::default() });
        runner.run(&prop::collection::vec(step, 1..40), check).expect("the property");
    }

    /// Programs that claim and release addresses of one place at the same time, and one that has another there all along.
    #[test]
    fn a_claim_is_found_whatever_others_do_meanwhile() {
        let Some(maps) = maps("a_claim_is_found_whatever_others_do_meanwhile") else { return };
        let [ours, theirs @ ..] =
            keys().try_into().map(|[a, b, c, d, ..]: [ClaimKey; 12]| [a, b, c, d]).expect("keys");
        let mut us = user(&maps);
        assert!(us.add(ours, claim(80)).expect("the kernel lets us"));
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let others: Vec<_> = theirs
                .into_iter()
                .map(|key| {
                    let mut other = user(&maps);
                    scope.spawn(move || {
                        for n in 0..500 {
                            assert!(other.add(key, claim(n)).expect("the kernel lets us"));
                            soon(|| found(&other, key) == Some(claim(n)));
                            other.remove(key).expect("it is there");
                            soon(|| found(&other, key).is_none());
                        }
                    })
                })
                .collect();
            let watcher = user(&maps);
            let done = &done;
            let watch = scope.spawn(move || {
                while !done.load(Relaxed) {
                    assert_eq!(found(&watcher, ours), Some(claim(80)));
                }
            });
            let ended: Vec<_> = others.into_iter().map(thread::ScopedJoinHandle::join).collect();
            done.store(true, Relaxed);
            assert!(watch.join().is_ok() && ended.iter().all(Result::is_ok));
        });
        us.correct().expect("the kernel lets us");
        assert_eq!(us.slot(ours.place()).expect("a slot"), Slot::NOTHING.with(ours, claim(80)));
    }

    /// Whoever comes next corrects what the index says too little or too much.
    #[test]
    fn what_a_killed_program_left_of_the_index_is_corrected() {
        let Some(maps) = maps("what_a_killed_program_left_of_the_index_is_corrected") else { return };
        let [a, b] = keys().try_into().map(|[a, .., b]: [ClaimKey; 12]| [a, b]).expect("keys");
        let mut killed = user(&maps);
        killed.map.insert(a.to_words(), claim(1).to_words(), NO_EXIST).expect("room");
        killed.write(b.place(), Slot::NOTHING.with(b, claim(0))).expect("a place");
        killed.hide(5).expect("a place");
        let mut next = user(&maps);
        assert_eq!((found(&next, a), found(&next, b)), (None, Some(claim(0))));
        next.correct().expect("the kernel lets us");
        assert_eq!((found(&next, a), found(&next, b)), (Some(claim(1)), None));
        assert_eq!(next.slot(5).expect("a slot"), Slot::NOTHING);
    }
}
