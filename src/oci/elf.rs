//! What an ELF file says of itself: its loader, the libraries it needs, what it runs on, and sections by
//! name. Reads headers and tables only, from anybody, in bounded memory. Knows no image.

use std::fs::File;

use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable};
use object::{FileKind, ReadCache, ReadRef, elf};

/// The largest section, and the largest table, that is read, in bytes.
const LARGEST_SECTION: u64 = 64 << 20;

/// A program or library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The program that loads it; none if it is linked statically, or a library.
    pub loader: Option<Vec<u8>>,
    /// The names of the libraries it needs.
    pub needed: Vec<Vec<u8>>,
    /// What it runs on, as Go says it; none if that is not known here.
    pub architecture: Option<&'static str>,
    /// Whether Go made it.
    pub is_go: bool,
    /// Whether its debug sections are compressed.
    pub packed_debug: bool,
}

/// Reads a file's headers; `None` if it is no ELF file, or damaged.
pub fn program(file: File) -> Option<Program> {
    let cache = ReadCache::new(file);
    match FileKind::parse(&cache).ok()? {
        FileKind::Elf32 => read::<elf::FileHeader32<object::Endianness>, _>(&cache),
        FileKind::Elf64 => read::<elf::FileHeader64<object::Endianness>, _>(&cache),
        _ => None,
    }
}

/// The content of a section; `None` if there is none, or it is too large.
pub fn section(file: File, name: &str) -> Option<Vec<u8>> {
    let cache = ReadCache::new(file);
    match FileKind::parse(&cache).ok()? {
        FileKind::Elf32 => bytes_of::<elf::FileHeader32<object::Endianness>, _>(&cache, name),
        FileKind::Elf64 => bytes_of::<elf::FileHeader64<object::Endianness>, _>(&cache, name),
        _ => None,
    }
}

/// The bytes that a program finds at an address in its memory, at most `most` of them.
pub fn memory(file: File, address: u64, most: u64) -> Option<Vec<u8>> {
    let cache = ReadCache::new(file);
    match FileKind::parse(&cache).ok()? {
        FileKind::Elf32 => at_address::<elf::FileHeader32<object::Endianness>, _>(&cache, address, most),
        FileKind::Elf64 => at_address::<elf::FileHeader64<object::Endianness>, _>(&cache, address, most),
        _ => None,
    }
}

fn sections<'d, E, R>(data: R) -> Option<(&'d E, E::Endian, SectionTable<'d, E, R>)>
where
    E: FileHeader,
    R: ReadRef<'d>,
{
    let header = E::parse(data).ok()?;
    let endian = header.endian().ok()?;
    Some((header, endian, header.sections(endian, data).ok()?))
}

fn read<'d, E, R>(data: R) -> Option<Program>
where
    E: FileHeader,
    R: ReadRef<'d>,
{
    let (header, endian, table) = sections::<E, R>(data)?;
    let mut program =
        Program { architecture: architecture(header.e_machine(endian)), ..Program::default() };
    for segment in header.program_headers(endian, data).ok()? {
        if segment.p_type(endian) == elf::PT_INTERP && segment.p_filesz(endian).into() <= 4096 {
            program.loader = segment.interpreter(endian, data).ok().flatten().map(<[u8]>::to_vec);
        }
    }
    for section in table.iter() {
        let name = table.section_name(endian, section).unwrap_or_default();
        program.is_go |= name == b".go.buildinfo" || name == b".note.go.buildid";
        let is_packed = section.sh_flags(endian).contains(elf::SHF_COMPRESSED);
        program.packed_debug |=
            name.starts_with(b".zdebug_") || (name.starts_with(b".debug_") && is_packed);
        if section.sh_type(endian) == elf::SHT_DYNAMIC && section.sh_size(endian).into() > LARGEST_SECTION {
            return None;
        }
    }
    let dynamic = table.dynamic_table(endian, data).ok()?;
    for entry in dynamic.iter().filter(|entry| entry.tag == elf::DT_NEEDED) {
        program.needed.extend(dynamic.string(entry).ok().map(<[u8]>::to_vec));
    }
    Some(program)
}

fn bytes_of<'d, E, R>(data: R, name: &str) -> Option<Vec<u8>>
where
    E: FileHeader,
    R: ReadRef<'d>,
{
    let (_, endian, table) = sections::<E, R>(data)?;
    let (_, section) = table.section_by_name(endian, name.as_bytes())?;
    if section.sh_size(endian).into() > LARGEST_SECTION {
        return None;
    }
    section.data(endian, data).ok().map(<[u8]>::to_vec)
}

fn at_address<'d, E, R>(data: R, address: u64, most: u64) -> Option<Vec<u8>>
where
    E: FileHeader,
    R: ReadRef<'d>,
{
    let (header, endian, _) = sections::<E, R>(data)?;
    header.program_headers(endian, data).ok()?.iter().find_map(|segment| {
        let start: u64 = segment.p_vaddr(endian).into();
        let size: u64 = segment.p_filesz(endian).into();
        let inside = address.checked_sub(start).filter(|inside| *inside < size)?;
        if segment.p_type(endian) != elf::PT_LOAD {
            return None;
        }
        let offset: u64 = segment.p_offset(endian).into();
        let length = most.min(size - inside).min(LARGEST_SECTION);
        data.read_bytes_at(offset.checked_add(inside)?, length).ok().map(<[u8]>::to_vec)
    })
}

fn architecture(machine: elf::Machine) -> Option<&'static str> {
    Some(match machine {
        elf::EM_X86_64 => "amd64",
        elf::EM_AARCH64 => "arm64",
        elf::EM_ARM => "arm",
        elf::EM_386 => "386",
        elf::EM_S390 => "s390x",
        elf::EM_RISCV => "riscv64",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_program_of_this_machine_says_what_it_needs() {
        let program = program(File::open("/bin/sh").unwrap()).unwrap();
        assert!(program.loader.unwrap().starts_with(b"/lib"));
        assert!(program.needed.iter().any(|name| name.starts_with(b"libc.so")));
        assert!(!program.is_go && !program.packed_debug);
        assert!(section(File::open("/bin/sh").unwrap(), ".interp").unwrap().starts_with(b"/lib"));
        assert_eq!(section(File::open("/bin/sh").unwrap(), ".go.buildinfo"), None);
        assert_eq!(super::program(file_of(b"#!/bin/sh\n")), None);
        assert_eq!(super::program(file_of(b"")), None);
    }

    proptest! {
        #[test]
        fn no_file_panics(edits in prop::collection::vec((0..4096_usize, any::<u8>()), 0..20), end in 16..60_000_usize) {
            let mut bytes = std::fs::read("/bin/sh").unwrap();
            bytes.truncate(end);
            for (at, byte) in edits {
                if let Some(slot) = bytes.get_mut(at) {
                    *slot = byte;
                }
            }
            bytes[..4].copy_from_slice(b"\x7fELF");
            let _ = program(file_of(&bytes));
            let _ = section(file_of(&bytes), ".interp");
            let _ = memory(file_of(&bytes), 0x1000, 64);
        }
    }
}
