//! Which packets a policy or an SA is for: prefixes, ports, protocol.
//!
//! Families are checked when a selector is built, so an encoder never meets a mixed one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address prefix.
///
/// The host bits are kept as given: the kernel keeps them too, and compares whole selectors when
/// it looks a policy up, so `10.1.0.1/16` and `10.1.0.0/16` are two policies.
/// [`Prefix::network`] clears them.
///
/// ```
/// use epochgate_xfrm::Prefix;
///
/// let prefix: Prefix = "10.1.0.1/16".parse()?;
/// assert_eq!(prefix.length(), 16);
/// assert_eq!(prefix.network().to_string(), "10.1.0.0/16");
/// assert_eq!("192.0.2.1".parse::<Prefix>()?.length(), 32);
/// # Ok::<(), epochgate_xfrm::InvalidSelector>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// A prefix or a selector that can't be: too long a prefix, or two address families in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSelector(&'static str);

impl fmt::Display for InvalidSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidSelector {}

impl Prefix {
    /// All of IPv4.
    pub const ANY_V4: Self = Self {
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        length: 0,
    };
    /// All of IPv6.
    pub const ANY_V6: Self = Self {
        address: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        length: 0,
    };

    /// The first `length` bits of `address`.
    ///
    /// # Errors
    /// If `length` is more than 32 (IPv4) or 128 (IPv6).
    pub const fn new(address: IpAddr, length: u8) -> Result<Self, InvalidSelector> {
        match (address, length) {
            (IpAddr::V4(_), 33..) => Err(InvalidSelector("an IPv4 prefix has at most 32 bits")),
            (IpAddr::V6(_), 129..) => Err(InvalidSelector("an IPv6 prefix has at most 128 bits")),
            _ => Ok(Self { address, length }),
        }
    }

    /// This one address.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        let length = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Self { address, length }
    }

    /// The address, host bits and all.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// The number of bits that count.
    #[must_use]
    pub const fn length(self) -> u8 {
        self.length
    }

    /// The same prefix with its host bits cleared.
    #[must_use]
    pub fn network(self) -> Self {
        let address = match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(self.length))
                    .unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.length))
                    .unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        };
        Self {
            address,
            length: self.length,
        }
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self::host(address)
    }
}

impl FromStr for Prefix {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address = address
            .parse()
            .map_err(|_| InvalidSelector("not an IP address"))?;
        let Some(length) = length else {
            return Ok(Self::host(address));
        };
        let length = length
            .parse()
            .map_err(|_| InvalidSelector("not a prefix length"))?;
        Self::new(address, length)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({self})")
    }
}

/// A port to match: `packet_port & mask == port` (kernel: `xfrm_selector.sport` and `sport_mask`).
///
/// For ICMP the source port stands for the type and the destination port for the code; for GRE the
/// two stand for the halves of the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortMatch {
    /// The bits wanted, in host byte order.
    pub port: u16,
    /// The bits looked at, in host byte order.
    pub mask: u16,
}

impl PortMatch {
    /// Any port.
    pub const ANY: Self = Self { port: 0, mask: 0 };

    /// This port alone.
    #[must_use]
    pub const fn exactly(port: u16) -> Self {
        Self {
            port,
            mask: u16::MAX,
        }
    }
}

/// Which packets are meant (kernel: `xfrm_selector`).
///
/// ```
/// use epochgate_xfrm::{PortMatch, Prefix, Selector};
///
/// let dns = Selector::new("10.1.0.0/16".parse()?, "10.2.0.0/16".parse()?)?
///     .with_protocol(17)
///     .with_ports(PortMatch::ANY, PortMatch::exactly(53));
/// assert_eq!(dns.to_string(), "10.1.0.0/16 -> 10.2.0.0/16 proto 17 dport 53");
/// assert!(Selector::new(Prefix::ANY_V4, Prefix::ANY_V6).is_err());
/// # Ok::<(), epochgate_xfrm::InvalidSelector>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    source: Prefix,
    destination: Prefix,
    /// The upper-layer protocol, 0 for any.
    pub protocol: u8,
    /// The source port.
    pub source_port: PortMatch,
    /// The destination port.
    pub destination_port: PortMatch,
    /// The interface a packet leaves by, 0 for any.
    pub interface_index: i32,
    /// The owner of the sending socket, 0 for any. The kernel stores it and does not match it.
    pub user: u32,
}

impl Selector {
    /// Everything in IPv4.
    pub const ANY_V4: Self = Self::all(Prefix::ANY_V4, Prefix::ANY_V4);
    /// Everything in IPv6.
    pub const ANY_V6: Self = Self::all(Prefix::ANY_V6, Prefix::ANY_V6);

    /// Everything from `source` to `destination`.
    ///
    /// # Errors
    /// If the two are of different address families.
    pub const fn new(source: Prefix, destination: Prefix) -> Result<Self, InvalidSelector> {
        match (source.address, destination.address) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                Ok(Self::all(source, destination))
            }
            _ => Err(InvalidSelector(
                "source and destination are of different families",
            )),
        }
    }

    const fn all(source: Prefix, destination: Prefix) -> Self {
        Self {
            source,
            destination,
            protocol: 0,
            source_port: PortMatch::ANY,
            destination_port: PortMatch::ANY,
            interface_index: 0,
            user: 0,
        }
    }

    /// Where matching packets come from.
    #[must_use]
    pub const fn source(&self) -> Prefix {
        self.source
    }

    /// Where matching packets go to.
    #[must_use]
    pub const fn destination(&self) -> Prefix {
        self.destination
    }

    /// The same, limited to one upper-layer protocol.
    #[must_use]
    pub const fn with_protocol(self, protocol: u8) -> Self {
        Self { protocol, ..self }
    }

    /// The same, limited to these ports.
    #[must_use]
    pub const fn with_ports(self, source_port: PortMatch, destination_port: PortMatch) -> Self {
        Self {
            source_port,
            destination_port,
            ..self
        }
    }

    /// The selector of the packets that answer: source and destination change places.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.source, self.destination)?;
        if self.protocol != 0 {
            write!(f, " proto {}", self.protocol)?;
        }
        for (name, side) in [
            ("sport", self.source_port),
            ("dport", self.destination_port),
        ] {
            match side.mask {
                0 => {}
                u16::MAX => write!(f, " {name} {}", side.port)?,
                mask => write!(f, " {name} {}/{mask:#x}", side.port)?,
            }
        }
        if self.interface_index != 0 {
            write!(f, " ifindex {}", self.interface_index)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().expect("a prefix")
    }

    #[test]
    fn a_prefix_reads_back_as_it_was_written() {
        for text in [
            "10.1.0.0/16",
            "0.0.0.0/0",
            "192.0.2.1/32",
            "2001:db8::/32",
            "::/0",
        ] {
            assert_eq!(prefix(text).to_string(), text);
        }
        assert_eq!(
            prefix("192.0.2.1"),
            Prefix::host("192.0.2.1".parse().expect("address"))
        );
    }

    #[test]
    fn a_prefix_longer_than_its_address_is_refused() {
        assert!("10.0.0.0/33".parse::<Prefix>().is_err());
        assert!("::/129".parse::<Prefix>().is_err());
        assert!("10.0.0.0/-1".parse::<Prefix>().is_err());
        assert!("ten/8".parse::<Prefix>().is_err());
    }

    #[test]
    fn a_network_has_no_host_bits() {
        assert_eq!(prefix("10.1.2.3/16").network(), prefix("10.1.0.0/16"));
        assert_eq!(prefix("10.1.2.3/0").network(), Prefix::ANY_V4);
        assert_eq!(
            prefix("2001:db8:1::1/32").network(),
            prefix("2001:db8::/32")
        );
        assert_eq!(prefix("::1/128").network(), prefix("::1/128"));
    }

    #[test]
    fn families_do_not_mix_in_one_selector() {
        assert!(Selector::new(Prefix::ANY_V4, Prefix::ANY_V6).is_err());
    }

    #[test]
    fn a_selector_reads_as_an_operator_would_write_it() {
        let selector = Selector::new(prefix("10.1.0.0/16"), prefix("10.2.0.0/16"))
            .expect("one family")
            .with_protocol(17)
            .with_ports(PortMatch::ANY, PortMatch::exactly(53));
        assert_eq!(
            selector.to_string(),
            "10.1.0.0/16 -> 10.2.0.0/16 proto 17 dport 53"
        );
        assert_eq!(
            selector.reversed().to_string(),
            "10.2.0.0/16 -> 10.1.0.0/16 proto 17 sport 53"
        );
    }
}
