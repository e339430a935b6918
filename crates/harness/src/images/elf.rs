//! What an ELF file asks for before it can run: a loader, and libraries.

/// Types of program headers and of entries of the dynamic section.
const LOAD: u64 = 1;
const DYNAMIC: u64 = 2;
const INTERP: u64 = 3;
const NEEDED: u64 = 1;
const STRTAB: u64 = 5;

/// A 64-bit little-endian ELF file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elf<'a>(&'a [u8]);

/// A program header: its type, and where it lies in the file and in memory.
#[derive(Clone, Copy, Debug)]
struct Segment {
    kind: u64,
    offset: usize,
    address: u64,
    length: usize,
}

impl<'a> Elf<'a> {
    /// The file, if it is one.
    pub(super) fn read(octets: &'a [u8]) -> Option<Self> {
        octets.starts_with(b"\x7fELF\x02\x01").then_some(Self(octets))
    }

    /// Path of the loader that it asks for; a static program asks for none. `None` too if the file is damaged.
    pub(super) fn loader(self) -> Option<&'a str> {
        let segment = self.segments()?.into_iter().find(|segment| segment.kind == INTERP)?;
        self.text(segment.offset)
    }

    /// Whether it runs without a loader.
    pub(super) fn is_static(self) -> bool {
        self.segments().is_some_and(|segments| segments.iter().all(|segment| segment.kind != INTERP))
    }

    /// Names of the libraries that it asks for; `None` if the file is damaged.
    pub(super) fn libraries(self) -> Option<Vec<&'a str>> {
        let segments = self.segments()?;
        let Some(dynamic) = segments.iter().find(|segment| segment.kind == DYNAMIC) else { return Some(Vec::new()) };
        let entry = |index: usize| {
            let at = dynamic.offset + index * 16;
            Some((self.number(at, 8)?, self.number(at + 8, 8)?))
        };
        let entries = (0..dynamic.length / 16).map(entry).collect::<Option<Vec<_>>>()?;
        let Some((_, address)) = entries.iter().find(|(tag, _)| *tag == STRTAB) else { return Some(Vec::new()) };
        let holds = |segment: &&Segment| {
            segment.kind == LOAD && address.checked_sub(segment.address).is_some_and(|at| at < segment.length as u64)
        };
        let segment = segments.iter().find(holds)?;
        let texts = segment.offset + usize::try_from(address - segment.address).ok()?;
        let names = entries.iter().filter(|(tag, _)| *tag == NEEDED);
        names.map(|(_, at)| self.text(texts.checked_add(usize::try_from(*at).ok()?)?)).collect()
    }

    fn segments(self) -> Option<Vec<Segment>> {
        let place = |value: u64| usize::try_from(value).ok();
        let (start, size) = (place(self.number(32, 8)?)?, place(self.number(54, 2)?)?);
        let segment = |index: usize| {
            let at = start.checked_add(index.checked_mul(size)?)?;
            Some(Segment {
                kind: self.number(at, 4)?,
                offset: place(self.number(at.checked_add(8)?, 8)?)?,
                address: self.number(at.checked_add(16)?, 8)?,
                length: place(self.number(at.checked_add(32)?, 8)?)?,
            })
        };
        (0..place(self.number(56, 2)?)?).map(segment).collect()
    }

    fn number(self, at: usize, length: usize) -> Option<u64> {
        let octets = self.0.get(at..at.checked_add(length)?)?;
        Some(octets.iter().rev().fold(0, |value, octet| value << 8 | u64::from(*octet)))
    }

    fn text(self, at: usize) -> Option<&'a str> {
        let octets = self.0.get(at..)?;
        std::str::from_utf8(octets.split(|octet| *octet == 0).next()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn this_test_asks_for_a_loader_and_the_c_library() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let own = Elf::read(&own).unwrap();
        assert!(!own.is_static());
        assert!(own.loader().unwrap().starts_with("/lib"), "{:?}", own.loader());
        assert!(own.libraries().unwrap().contains(&"libc.so.6"), "{:?}", own.libraries());
    }

    #[test]
    fn what_is_damaged_is_not_taken_for_static() {
        assert!(Elf::read(b"\x7fELF").is_none());
        let cut = Elf::read(b"\x7fELF\x02\x01").unwrap();
        assert!(!cut.is_static() && cut.loader().is_none() && cut.libraries().is_none());
    }
}
