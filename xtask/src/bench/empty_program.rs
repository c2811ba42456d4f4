//! The XDP program that does nothing: what a program costs by being there, beside which ours is measured.

use anyhow::{Context, Result};
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

/// Its section, by which whoever attaches it names it. Frames may lie in several buffers, as for ours.
pub const SECTION: &str = "xdp.frags";

/// Its name.
pub const NAME: &str = "empty";

/// `r0 = XDP_PASS; exit`
const INSTRUCTIONS: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// The object, as a compiler would have made it.
pub fn object() -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.set_section_data(license, &b"GPL\0"[..], 1);
    let section = object.add_section(Vec::new(), SECTION.as_bytes().to_vec(), SectionKind::Text);
    object.set_section_data(section, &INSTRUCTIONS[..], 8);
    object.add_symbol(Symbol {
        name: NAME.as_bytes().to_vec(),
        value: 0,
        size: INSTRUCTIONS.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    object.write().context("cannot put the empty XDP program together")
}

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

    use super::*;

    #[test]
    fn it_is_an_object_with_one_program_of_two_instructions() {
        let bytes = object().unwrap();
        let read = object::File::parse(&*bytes).unwrap();
        assert_eq!(read.architecture(), Architecture::Bpf);
        let section = read.section_by_name(SECTION).expect("its section");
        assert_eq!(section.data().unwrap(), INSTRUCTIONS);
        let symbol = read.symbol_by_name(NAME).expect("its symbol");
        assert!(symbol.is_global() && symbol.section_index() == Some(section.index()));
    }
}
