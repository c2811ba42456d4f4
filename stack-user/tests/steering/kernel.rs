//! The XDP program in the kernel, run by BPF_PROG_TEST_RUN on frames of ours.

use std::{error::Error, fs, io, path::PathBuf};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, PerCpuArray},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use stack_common::{
    abi::{self, Claim, ClaimKey, NO_SOCKET},
    index::{INDEX_LEN, Slot},
    steer::Verdict,
};

use super::table::Claims;

/// The shortest frame that the kernel takes for a test: an Ethernet header.
pub(crate) const SHORTEST: usize = 14;

/// Both objects: of the directory that XSTACK_OBJECTS names, else the ones that are kept in the repository.
pub(crate) fn objects() -> [PathBuf; 2] {
    let kept = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf"));
    let directory = std::env::var_os("XSTACK_OBJECTS").map_or_else(kept, PathBuf::from);
    ["xstack.bpf.o", "xstack-log.bpf.o"].map(|name| directory.join(name))
}

/// The loaded program. It is attached to nothing, and no queue has a socket.
pub(crate) struct Kernel {
    ebpf: Ebpf,
    counters: PerCpuArray<MapData, u64>,
    /// What the counters said last.
    seen: Vec<u64>,
}

impl Kernel {
    /// Loads an object. `Err` is a reason to skip; whatever else goes wrong is a failure.
    pub(crate) fn load(object: &PathBuf, claims: &Claims) -> Result<Self, String> {
        let bytes = fs::read(object).unwrap_or_else(|error| panic!("{}: {error}", object.display()));
        let mut ebpf = match load(&bytes) {
            Ok(ebpf) => ebpf,
            Err(error) => match errno(&*error) {
                Some(libc::EPERM | libc::EACCES) if !nix::unistd::geteuid().is_root() => {
                    return Err("loading a BPF program needs root".to_owned());
                }
                Some(libc::EPERM | libc::ENOSYS) => {
                    return Err("this kernel lets nobody load BPF programs".to_owned());
                }
                _ => panic!("{}: {error:?}", object.display()),
            },
        };
        let map = ebpf.map_mut(abi::CLAIMS).expect("the map of claims");
        let mut map: HashMap<_, [u32; ClaimKey::WORDS], [u32; Claim::WORDS]> =
            map.try_into().expect("its layout");
        for (key, claim) in &claims.0 {
            map.insert(key.to_words(), claim.to_words(), 0).expect("room for a claim");
        }
        let mut slots = [Slot::NOTHING; INDEX_LEN];
        for (key, claim) in &claims.0 {
            let slot = &mut slots[key.place() as usize];
            *slot = slot.with(*key, *claim);
        }
        let index = ebpf.map_mut(abi::INDEX).expect("the index");
        let mut index: Array<_, [u32; Slot::WORDS]> = index.try_into().expect("its layout");
        for (place, slot) in (0..).zip(slots) {
            index.set(place, slot.to_words(), 0).expect("a place below the length");
        }
        let counters = ebpf.take_map(abi::COUNTERS).expect("the map of counters");
        let counters = counters.try_into().expect("its layout");
        Ok(Self { ebpf, counters, seen: vec![0; abi::COUNTERS_LEN] })
    }

    /// Runs a frame through the program. Its counters tell what it decided: exactly one verdict's goes up by one.
    ///
    /// The counter that is expected to is looked at first, since reading them all takes longer than the run.
    pub(crate) fn decide(&mut self, frame: &[u8], expected: Verdict) -> Verdict {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
        let result = self
            .program()
            .test_run(options)
            .unwrap_or_else(|error| panic!("{} bytes: {error:?}", frame.len()));
        // There is no socket, so what is ours goes to the kernel too.
        const XDP_PASS: u32 = 2;
        assert_eq!(result.return_value, XDP_PASS, "without a socket every frame is the kernel's");

        let likely = std::iter::once(expected);
        let verdict = likely.chain(Verdict::ALL).find(|verdict| self.has_risen(verdict.index()));
        let verdict = verdict.expect("every frame gets a verdict");
        if verdict.is_redirect() {
            assert!(self.has_risen(NO_SOCKET), "{verdict:?}");
        }
        verdict
    }

    /// The program itself, for who wants to run it otherwise.
    pub(crate) fn program(&self) -> &Xdp {
        self.ebpf.program(abi::PROGRAM).expect("the program").try_into().expect("of type XDP")
    }

    /// Makes sure that no counter has risen unseen.
    pub(crate) fn check_counters(&self) {
        for index in 0..abi::COUNTERS_LEN as u32 {
            assert_eq!(self.count(index), self.seen[index as usize], "{:?}", abi::counter_name(index));
        }
    }

    /// Whether a counter has risen by one since it was last looked at.
    fn has_risen(&mut self, index: u32) -> bool {
        let count = self.count(index);
        let seen = &mut self.seen[index as usize];
        let has_risen = count == *seen + 1;
        *seen += u64::from(has_risen);
        has_risen
    }

    fn count(&self, index: u32) -> u64 {
        self.counters.get(&index, 0).expect("a counter").iter().sum()
    }
}

fn load(object: &[u8]) -> Result<Ebpf, Box<dyn Error>> {
    let mut ebpf = Ebpf::load(&without_pins(object))?;
    let program: &mut Xdp = ebpf.program_mut(abi::PROGRAM).ok_or("no program")?.try_into()?;
    program.load()?;
    Ok(ebpf)
}

/// aya pins what may be pinned, by default where others would find it. A member that it does not know stops it.
fn without_pins(object: &[u8]) -> Vec<u8> {
    let mut object = object.to_vec();
    let at = object.windows(9).position(|window| window == b"\0pinning\0").expect("maps that can be pinned");
    object[at..at + 9].copy_from_slice(b"\0ignored\0");
    object
}

fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let causes = std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
    causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).find_map(io::Error::raw_os_error)
}
