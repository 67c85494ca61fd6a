//! The kernel's XFRM counters, from `/proc/net/xfrm_stat` of the calling thread's network
//! namespace (kernel: `CONFIG_XFRM_STATISTICS`).

use crate::{Cause, DecodeError, Operation, Result, XfrmError};

/// `/proc/net` would be the main thread's namespace.
const PATH: &str = "/proc/thread-self/net/xfrm_stat";

/// All counters, in the kernel's order. Which there are depends on the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    counters: Vec<(String, u64)>,
}

impl Counters {
    /// Reads the counters.
    ///
    /// # Errors
    /// ENOENT if the kernel keeps none.
    pub fn read() -> Result<Self> {
        let text = std::fs::read_to_string(PATH)
            .map_err(|error| XfrmError::refused(Operation::ReadCounters, &error))?;
        Self::parse(&text)
            .map_err(|error| XfrmError::new(Operation::ReadCounters, Cause::Malformed(error)))
    }

    /// Reads the counters from the file's text.
    ///
    /// ```
    /// use epochgate_xfrm::counters::Counters;
    ///
    /// let counters = Counters::parse("XfrmInError\t0\nXfrmOutPolError\t17\n")?;
    /// assert_eq!(counters.get("XfrmOutPolError"), Some(17));
    /// # Ok::<(), epochgate_xfrm::DecodeError>(())
    /// ```
    ///
    /// # Errors
    /// If a line is not a name and a number.
    pub fn parse(text: &str) -> Result<Self, DecodeError> {
        let counter = |line: &str| {
            let (name, number) = line.split_once(char::is_whitespace)?;
            Some((name.to_owned(), number.trim().parse().ok()?))
        };
        let mut counters = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let parsed = counter(line);
            let line_number = u64::try_from(number + 1).unwrap_or(u64::MAX);
            counters.push(parsed.ok_or(DecodeError::value("line of xfrm_stat", line_number))?);
        }
        Ok(Self { counters })
    }

    /// The counter of this name, such as `XfrmOutPolError`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.iter()
            .find(|(candidate, _)| *candidate == name)
            .map(|(_, value)| value)
    }

    /// All counters.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counters
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_read_as_the_kernel_writes_them() {
        let text = "XfrmInError             \t0\nXfrmOutPolError         \t17\n";
        let counters = Counters::parse(text).expect("well formed");
        assert_eq!(counters.get("XfrmOutPolError"), Some(17));
        assert_eq!(counters.get("XfrmNothing"), None);
        assert_eq!(counters.iter().count(), 2);
    }

    #[test]
    fn a_line_without_a_number_is_an_error() {
        assert!(Counters::parse("XfrmInError many\n").is_err());
        assert!(Counters::parse("XfrmInError\n").is_err());
    }
}
