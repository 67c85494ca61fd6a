//! A buffer that requests are written into: netlink headers, structures, attributes. It may carry
//! keys, so it is wiped when it grows and when it is dropped.

use netlink_packet_core::Emitable;
use zeroize::Zeroizing;

/// Netlink messages and attributes start at multiples of this (`NLMSG_ALIGNTO`, `NLA_ALIGNTO`).
pub(crate) const ALIGNMENT: usize = 4;
/// The length of `struct nlmsghdr`.
pub(crate) const HEADER_LENGTH: usize = 16;
/// The length of `struct nlattr`.
pub(crate) const ATTRIBUTE_HEADER_LENGTH: usize = netlink_packet_core::NLA_HEADER_SIZE;
/// Enough for a batch, so that growing (which copies) is rare.
const INITIAL_CAPACITY: usize = 16 * 1024;

pub(crate) struct Writer {
    bytes: Zeroizing<Vec<u8>>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Zeroizing::new(Vec::with_capacity(INITIAL_CAPACITY)),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets, and wipes, everything behind `length`.
    pub(crate) fn truncate(&mut self, length: usize) {
        if let Some(rest) = self.bytes.get_mut(length..) {
            rest.fill(0);
        }
        self.bytes.truncate(length);
    }

    /// Appends bytes. A vector that grows by itself would leave its old, unwiped copy behind.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let needed = self.bytes.len() + bytes.len();
        if needed > self.bytes.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.next_power_of_two()));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn zeros(&mut self, count: usize) {
        const ZEROS: [u8; 256] = [0; 256];
        let mut left = count;
        while left > 0 {
            let step = left.min(ZEROS.len());
            self.put(ZEROS.get(..step).unwrap_or_default());
            left -= step;
        }
    }

    /// Appends a structure that holds no key.
    pub(crate) fn structure(&mut self, structure: &impl Emitable) {
        let start = self.bytes.len();
        self.zeros(structure.buffer_len());
        if let Some(place) = self.bytes.get_mut(start..) {
            structure.emit(place);
        }
    }

    /// Appends an attribute whose payload `write` writes.
    pub(crate) fn attribute(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.zeros(ATTRIBUTE_HEADER_LENGTH);
        write(self);
        // An attribute longer than its length field can say comes from keys and raw attributes
        // alone; the kernel rejects the cut one.
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.patch(start, &length.to_ne_bytes());
        self.patch(start + 2, &kind.to_ne_bytes());
        self.align();
    }

    pub(crate) fn attribute_bytes(&mut self, kind: u16, payload: &[u8]) {
        self.attribute(kind, |writer| writer.put(payload));
    }

    pub(crate) fn attribute_u32(&mut self, kind: u16, value: u32) {
        self.attribute_bytes(kind, &value.to_ne_bytes());
    }

    pub(crate) fn attribute_structure(&mut self, kind: u16, structure: &impl Emitable) {
        self.attribute(kind, |writer| writer.structure(structure));
    }

    pub(crate) fn align(&mut self) {
        self.zeros(self.bytes.len().next_multiple_of(ALIGNMENT) - self.bytes.len());
    }

    pub(crate) fn patch(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_padded_and_its_length_is_not() {
        let mut writer = Writer::new();
        writer.attribute_bytes(7, &[1, 2, 3, 4, 5]);
        let mut expected = Vec::new();
        expected.extend_from_slice(&9_u16.to_ne_bytes());
        expected.extend_from_slice(&7_u16.to_ne_bytes());
        expected.extend_from_slice(&[1, 2, 3, 4, 5, 0, 0, 0]);
        assert_eq!(writer.bytes(), expected);
    }

    #[test]
    fn a_writer_grows_past_its_first_capacity() {
        let mut writer = Writer::new();
        writer.zeros(INITIAL_CAPACITY - 1);
        writer.put(&[7; 9]);
        assert_eq!(writer.len(), INITIAL_CAPACITY + 8);
        assert_eq!(writer.bytes().last(), Some(&7));
    }
}
