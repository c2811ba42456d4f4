//! What a driver does to frames on its own: its features, by name, as `ethtool -k` lists them.

use std::{collections::BTreeMap, fmt, io};

use super::ethtool::{Request, tell};

const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
/// `ETH_SS_FEATURES`: the names of the features.
const SET_OF_FEATURES: u32 = 4;
/// `ETH_GSTRING_LEN`.
const NAME_LEN: usize = 32;
/// Features that we have room for, a multiple of 32. Linux 6.18 has 64, and a word of them grows in years.
const FEATURES_MAX: usize = 256;
const WORDS: usize = FEATURES_MAX / 32;

/// `struct ethtool_sset_info` for one set.
#[repr(C)]
struct SetSize {
    command: u32,
    reserved: u32,
    sets: u64,
    len: u32,
}

/// `struct ethtool_gstrings`.
#[repr(C)]
struct Names {
    command: u32,
    set: u32,
    len: u32,
    names: [[u8; NAME_LEN]; FEATURES_MAX],
}

/// `struct ethtool_get_features_block`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct State {
    available: u32,
    requested: u32,
    active: u32,
    never_changed: u32,
}

/// `struct ethtool_gfeatures`.
#[repr(C)]
struct States {
    command: u32,
    words: u32,
    states: [State; WORDS],
}

/// `struct ethtool_set_features_block`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Wish {
    valid: u32,
    requested: u32,
}

/// `struct ethtool_sfeatures`.
#[repr(C)]
struct Wishes {
    command: u32,
    words: u32,
    wishes: [Wish; WORDS],
}

// SAFETY: the layout is the kernel's for ETHTOOL_GSSET_INFO, which writes one length for the one set that is asked for.
unsafe impl Request for SetSize {}
// SAFETY: as many names are written as there are, which `names` has made sure is no more than there is room for.
unsafe impl Request for Names {}
// SAFETY: no more words are written than `words` says.
unsafe impl Request for States {}
// SAFETY: it is only read, as many words of it as there are features, which `names` has counted.
unsafe impl Request for Wishes {}

/// A feature, or a group of features, that somebody may switch: what `ethtool -K` calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Offload {
    /// Checksums of what is sent are left to the hardware; on a veth pair to nobody.
    TxChecksum,
    /// Received segments are put together by the kernel (generic receive offload).
    Gro,
    /// Received segments are put together by the hardware, so that they can be told apart again.
    HardwareGro,
    /// Received segments are put together by the driver or the hardware (large receive offload).
    Lro,
    /// VLAN tags are taken off what is received.
    RxVlan,
    /// VLAN tags are put on by the hardware; on a veth pair they stay beside the frame.
    TxVlan,
}

impl Offload {
    /// What `ethtool -K` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TxChecksum => "tx",
            Self::Gro => "gro",
            Self::HardwareGro => "rx-gro-hw",
            Self::Lro => "lro",
            Self::RxVlan => "rxvlan",
            Self::TxVlan => "txvlan",
        }
    }

    /// Whether the kernel's feature of this name is of it.
    fn has(self, feature: &str) -> bool {
        match self {
            Self::TxChecksum => feature.starts_with("tx-checksum-"),
            Self::Gro => feature == "rx-gro",
            Self::HardwareGro => feature == "rx-gro-hw",
            Self::Lro => feature == "rx-lro",
            Self::RxVlan => feature == "rx-vlan-hw-parse",
            Self::TxVlan => feature == "tx-vlan-hw-insert",
        }
    }
}

impl fmt::Display for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One feature, as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Whether it is on.
    pub on: bool,
    /// Whether anybody may switch it.
    pub fixed: bool,
}

/// All features of an interface, by the kernel's names for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features(BTreeMap<String, Feature>);

impl Features {
    /// Those of an interface of this network namespace, as the driver has them now.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn read(interface: &str) -> io::Result<Self> {
        let names = names(interface)?;
        let mut states = Box::new(States {
            command: ETHTOOL_GFEATURES,
            words: WORDS as u32,
            states: [State::default(); WORDS],
        });
        tell(interface, &mut *states)?;
        let feature = |(bit, name): (usize, String)| {
            let (state, mask) = (states.states[bit / 32], 1 << (bit % 32));
            let fixed = state.available & mask == 0 || state.never_changed & mask != 0;
            (name, Feature { on: state.active & mask != 0, fixed })
        };
        Ok(Self(names.into_iter().enumerate().filter(|(_, name)| !name.is_empty()).map(feature).collect()))
    }

    /// Whether an offload is on, at least in part; `None` if this kernel does not know it.
    pub fn offload(&self, offload: Offload) -> Option<Feature> {
        let parts = self.0.iter().filter(|(name, _)| offload.has(name)).map(|(_, feature)| *feature);
        parts.reduce(|a, b| Feature { on: a.on || b.on, fixed: a.fixed && b.fixed })
    }

    /// Whether an offload is on.
    pub fn is_on(&self, offload: Offload) -> bool {
        self.offload(offload).is_some_and(|feature| feature.on)
    }
}

impl FromIterator<(String, Feature)> for Features {
    fn from_iter<I: IntoIterator<Item = (String, Feature)>>(features: I) -> Self {
        Self(features.into_iter().collect())
    }
}

/// Switches an offload of an interface of this network namespace, as `ethtool -K` does.
///
/// # Errors
/// When the kernel refuses, or the driver keeps it as it is.
pub fn switch(interface: &str, offload: Offload, on: bool) -> io::Result<()> {
    let mut request =
        Box::new(Wishes { command: ETHTOOL_SFEATURES, words: 0, wishes: [Wish::default(); WORDS] });
    let (names, features) = (names(interface)?, Features::read(interface)?);
    request.words = names.len().div_ceil(32) as u32;
    for (bit, name) in names.iter().enumerate() {
        let may_be = features.0.get(name).is_some_and(|feature| !feature.fixed);
        if offload.has(name) && may_be {
            let wish = &mut request.wishes[bit / 32];
            wish.valid |= 1 << (bit % 32);
            wish.requested |= u32::from(on) << (bit % 32);
        }
    }
    if request.wishes.iter().all(|wish| wish.valid == 0) {
        return Err(io::Error::other(format!("{interface} does not let anybody switch {offload}")));
    }
    tell(interface, &mut *request)?;
    match Features::read(interface)?.is_on(offload) == on {
        true => Ok(()),
        false => Err(io::Error::other(format!("{interface} keeps {offload} as it was"))),
    }
}

/// The names of all features, by their bits.
fn names(interface: &str) -> io::Result<Vec<String>> {
    let mut size = SetSize { command: ETHTOOL_GSSET_INFO, reserved: 0, sets: 1 << SET_OF_FEATURES, len: 0 };
    tell(interface, &mut size)?;
    if size.len as usize > FEATURES_MAX {
        return Err(io::Error::other(format!(
            "this kernel has {} features, and we know of {FEATURES_MAX}",
            size.len
        )));
    }
    let mut names = Box::new(Names {
        command: ETHTOOL_GSTRINGS,
        set: SET_OF_FEATURES,
        len: size.len,
        names: [[0; NAME_LEN]; FEATURES_MAX],
    });
    tell(interface, &mut *names)?;
    let text = |name: &[u8; NAME_LEN]| {
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(NAME_LEN);
        String::from_utf8_lossy(&name[..end]).into_owned()
    };
    Ok(names.names.iter().take(size.len as usize).map(text).collect())
}

/// Features of an interface, or none if nobody tells.
pub(super) fn of(interface: &str) -> Option<Features> {
    Features::read(interface).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_as_long_as_the_kernels() {
        assert_eq!(std::mem::offset_of!(SetSize, len), 16);
        assert_eq!(std::mem::offset_of!(Names, names), 12);
        assert_eq!(std::mem::offset_of!(States, states), 8);
        assert_eq!(std::mem::offset_of!(Wishes, wishes), 8);
    }

    #[test]
    fn loopback_has_checksum_offload_that_nobody_may_switch() {
        let features = Features::read("lo").expect("features");
        let tx = features.offload(Offload::TxChecksum).expect("known");
        assert!(tx.on, "{features:?}");
        assert_eq!(features.offload(Offload::RxVlan), Some(Feature { on: false, fixed: true }));
    }

    #[test]
    fn an_interface_that_is_not_there_has_none() {
        assert!(Features::read("xs-none").is_err() && switch("xs-none", Offload::Gro, true).is_err());
    }

    #[test]
    fn a_group_is_on_if_a_part_of_it_is() {
        let feature = |on, fixed| Feature { on, fixed };
        let features: Features = [
            ("tx-checksum-ipv4".to_owned(), feature(false, true)),
            ("tx-checksum-ip-generic".to_owned(), feature(true, false)),
            ("rx-gro".to_owned(), feature(false, false)),
        ]
        .into_iter()
        .collect();
        assert_eq!(features.offload(Offload::TxChecksum), Some(feature(true, false)));
        assert!(!features.is_on(Offload::Gro) && features.offload(Offload::HardwareGro).is_none());
    }
}
