//! What SAs and policies have beside their fixed structures, where it is a type of its own: hardware
//! offload, security labels, IP-TFS, and attributes that nobody here knows.

use std::fmt;

use bitflags::bitflags;
use zeroize::{Zeroize, ZeroizeOnDrop};

bitflags! {
    /// How an SA or a policy is offloaded (kernel: `XFRM_OFFLOAD_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct OffloadFlags: u8 {
        /// The SA is for IPv6. Kernels ignore it, and do not report it.
        const IPV6 = 1;
        /// The SA is for packets that come in.
        const INBOUND = 2;
        /// The device does all of IPsec (packet offload, Linux 6.2). Without it the device does the
        /// cryptography alone (crypto offload). Always set in policies.
        const PACKET = 4;
        /// What a newer kernel may report.
        const _ = !0;
    }
}

/// Hardware offload (kernel: `xfrm_user_offload`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Offload {
    /// The network device.
    pub interface_index: i32,
    /// What it does, and for which packets.
    pub flags: OffloadFlags,
}

/// The label of a security module (kernel: `xfrm_user_sec_ctx`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecurityContext {
    /// Whose the label is (kernel: `ctx_doi`): 1 for the running security module.
    pub domain: u8,
    /// Which kind of label (kernel: `ctx_alg`): 1 for SELinux.
    pub algorithm: u8,
    /// The label as the kernel has it: text, with a zero at its end.
    pub label: Vec<u8>,
}

impl SecurityContext {
    /// `XFRM_SC_DOI_LSM`.
    const DOMAIN_LSM: u8 = 1;
    /// `XFRM_SC_ALG_SELINUX`.
    const ALGORITHM_SELINUX: u8 = 1;

    /// A label of SELinux, such as `system_u:object_r:ipsec_spd_t:s0`.
    #[must_use]
    pub fn selinux(label: &str) -> Self {
        let mut label = label.as_bytes().to_vec();
        label.push(0);
        Self {
            domain: Self::DOMAIN_LSM,
            algorithm: Self::ALGORITHM_SELINUX,
            label,
        }
    }
}

impl fmt::Display for SecurityContext {
    /// The label's text, without what follows its zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.label.split(|byte| *byte == 0).next();
        f.write_str(&String::from_utf8_lossy(text.unwrap_or_default()))
    }
}

/// How [`Mode::Iptfs`](crate::Mode::Iptfs) aggregates and fragments packets (RFC 9347; kernel:
/// `XFRMA_IPTFS_*`, Linux 6.14). `None` takes the kernel's default, and is what the kernel reports
/// for settings of the other direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Iptfs {
    /// Inbound: how long to wait for a missing sequence number, in microseconds.
    pub drop_time_microseconds: Option<u32>,
    /// Inbound: how many packets may come before the one that is missing.
    pub reorder_window_packets: Option<u16>,
    /// Outbound: do not spread a packet over several outer ones.
    pub dont_fragment: bool,
    /// Outbound: how long to wait for more packets to send with the first, in microseconds.
    pub initial_delay_microseconds: Option<u32>,
    /// Outbound: how many octets may wait to be sent.
    pub queue_octets_max: Option<u32>,
    /// Outbound: the size of outer packets in octets, 0 for the path's MTU.
    pub packet_octets: Option<u32>,
}

/// An attribute as it came from the kernel. `Debug` shows its length only, and the bytes are wiped
/// when dropped: what it is, this crate does not know; it may be a key.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct RawAttribute {
    /// The attribute's number (`XFRMA_*`).
    pub kind: u16,
    /// Its payload.
    pub value: Vec<u8>,
}

impl fmt::Debug for RawAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawAttribute({}, {} bytes)", self.kind, self.value.len())
    }
}
