//! A fuzzer's bytes, read as decisions. When they are used up every decision is 0.

/// What is left of them.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn octet(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub(super) fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.octet(), self.octet()])
    }

    /// An index below `bound`; 0 where there is none.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.octet()).checked_rem(bound).unwrap_or(0)
    }

    /// As many octets as the next one says, or what is there.
    pub(super) fn some(&mut self) -> &'a [u8] {
        let length = usize::from(self.octet()).min(self.0.len());
        let (some, rest) = self.0.split_at(length);
        self.0 = rest;
        some
    }
}
