//! The maps, as BTF describes them to the loader.
//!
//! Our own definitions, since a map that `xdp-loader load -p` is to pin must say so by a `pinning` member. A
//! loader reads the types, never the values: a number is the length of an array that a null pointer points to.

use core::ptr::{self, null};

use aya_ebpf::{
    bindings::{
        bpf_map_type::{
            BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_XSKMAP,
        },
        xdp_action,
    },
    helpers::{bpf_map_lookup_elem, bpf_redirect_map},
    macros::btf_map,
};
use stack_common::{
    abi::{ABI_VERSION, CLAIMS_MAX, COUNTERS_LEN, Claim, ClaimKey, RUN_PRIORITY, XSKS_MAX},
    index::{Answer, INDEX_LEN, Slot},
    steer::Policy,
};

/// LIBBPF_PIN_BY_NAME: a loader that was given a directory pins the map there under its name.
const PIN_BY_NAME: usize = 1;

/// A map's definition. The member names are libbpf's.
#[repr(C)]
pub(crate) struct Map<K, V, const TYPE: usize, const MAX_ENTRIES: usize> {
    r#type: *const [i32; TYPE],
    key: *const K,
    value: *const V,
    max_entries: *const [i32; MAX_ENTRIES],
    pinning: *const [i32; PIN_BY_NAME],
}

// SAFETY: the pointers are null and never followed; the kernel serializes what is done with a map.
unsafe impl<K, V, const TYPE: usize, const MAX_ENTRIES: usize> Sync for Map<K, V, TYPE, MAX_ENTRIES> {}

impl<K, V, const TYPE: usize, const MAX_ENTRIES: usize> Map<K, V, TYPE, MAX_ENTRIES> {
    const fn new() -> Self {
        Self { r#type: null(), key: null(), value: null(), max_entries: null(), pinning: null() }
    }

    #[inline(always)]
    fn lookup(&self, key: &K) -> *mut V {
        // SAFETY: the loader has put the map's address where this definition is, and the key is readable for
        // as many bytes as the definition says.
        unsafe {
            bpf_map_lookup_elem(ptr::from_ref(self).cast_mut().cast(), ptr::from_ref(key).cast()).cast()
        }
    }
}

#[btf_map]
pub(crate) static XSKS: Map<u32, u32, { BPF_MAP_TYPE_XSKMAP as usize }, XSKS_MAX> = Map::new();

#[btf_map]
static INDEX: Map<u32, Slot, { BPF_MAP_TYPE_ARRAY as usize }, INDEX_LEN> = Map::new();

#[btf_map]
static CLAIMS: Map<ClaimKey, Claim, { BPF_MAP_TYPE_HASH as usize }, CLAIMS_MAX> = Map::new();

#[btf_map]
pub(crate) static COUNTERS: Map<u32, u64, { BPF_MAP_TYPE_PERCPU_ARRAY as usize }, COUNTERS_LEN> = Map::new();

/// Nobody reads or writes this one: its number of entries is what it says.
#[btf_map]
pub(crate) static XSTACK_ABI: Map<u32, u32, { BPF_MAP_TYPE_ARRAY as usize }, { ABI_VERSION as usize }> =
    Map::new();

/// How libxdp runs the program among others. The member names are libxdp's: `priority`, and the actions after which the
/// next program has its turn.
#[repr(C)]
#[allow(non_snake_case)]
pub(crate) struct RunConfig {
    priority: *const [i32; RUN_PRIORITY],
    /// A frame that is not ours is everybody else's. One that is goes to its socket, and nobody else has a say.
    XDP_PASS: *const [i32; 1],
}

// SAFETY: the pointers are null and never followed.
unsafe impl Sync for RunConfig {}

/// libxdp looks for the program's name behind an underscore.
#[used]
#[unsafe(link_section = ".xdp_run_config")]
#[unsafe(export_name = "_xstack")]
static RUN_CONFIG: RunConfig = RunConfig { priority: null(), XDP_PASS: null() };

impl Map<u32, u32, { BPF_MAP_TYPE_XSKMAP as usize }, XSKS_MAX> {
    /// Hands the frame to the queue's socket, if there is one, else to the kernel. Returns the action to take.
    #[inline(always)]
    pub(crate) fn redirect(&self, queue: u32) -> u32 {
        // What the helper returns when there is no socket are the low bits of the flags.
        let otherwise = u64::from(xdp_action::XDP_PASS);
        // SAFETY: the map is an XSKMAP.
        unsafe { bpf_redirect_map(ptr::from_ref(self).cast_mut().cast(), queue.into(), otherwise) as u32 }
    }
}

/// What is claimed, as the index says, or else the map.
pub(crate) struct Claimed;

impl Policy for Claimed {
    #[inline(always)]
    fn claim(&self, key: &ClaimKey) -> Option<&Claim> {
        // SAFETY: null, which no place below the array's length is, or an entry of it, which stays readable. User
        // space sees to it that one which it is about to change refers to the map.
        let slot = unsafe { INDEX.lookup(&key.place()).as_ref() }?;
        match slot.find(key) {
            Answer::Nothing => None,
            Answer::Claim(claim) => Some(claim),
            // SAFETY: null, or an entry of the map, which the kernel keeps readable until the program returns. An
            // entry that user space replaces meanwhile is an array of words still.
            Answer::Ask => unsafe { CLAIMS.lookup(key).as_ref() },
        }
    }
}

impl Map<u32, u64, { BPF_MAP_TYPE_PERCPU_ARRAY as usize }, COUNTERS_LEN> {
    #[inline(always)]
    pub(crate) fn bump(&self, counter: u32) {
        // SAFETY: null, or this CPU's slot, which only this program writes to and which it is not preempted in.
        if let Some(count) = unsafe { self.lookup(&counter).as_mut() } {
            *count += 1;
        }
    }
}
