//! The SAD and SPD as a whole: their sizes, and what happens where no policy is met.

use crate::PolicyAction;

/// The SAD (kernel: `XFRMA_SAD_CNT`, `xfrmu_sadhinfo`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SadInfo {
    /// SAs.
    pub sas: u32,
    /// Buckets of the hash tables.
    pub hash_buckets: u32,
    /// The most buckets they may grow to.
    pub hash_buckets_max: u32,
}

/// The SPD (kernel: `xfrmu_spdinfo`, `xfrmu_spdhinfo`, `xfrmu_spdhthresh`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SpdInfo {
    /// `in` policies.
    pub inbound: u32,
    /// `out` policies.
    pub outbound: u32,
    /// `fwd` policies.
    pub forward: u32,
    /// Sockets' own `in` policies.
    pub socket_inbound: u32,
    /// Sockets' own `out` policies.
    pub socket_outbound: u32,
    /// Sockets' own `fwd` policies: none.
    pub socket_forward: u32,
    /// Buckets of the hash tables.
    pub hash_buckets: u32,
    /// The most buckets they may grow to.
    pub hash_buckets_max: u32,
    /// From which prefix lengths on IPv4 policies are hashed.
    pub hash_threshold_v4: Option<HashThreshold>,
    /// From which prefix lengths on IPv6 policies are hashed.
    pub hash_threshold_v6: Option<HashThreshold>,
}

impl SpdInfo {
    /// All policies, sockets' own included.
    #[must_use]
    pub fn policies(&self) -> u64 {
        [
            self.inbound,
            self.outbound,
            self.forward,
            self.socket_inbound,
            self.socket_outbound,
            self.socket_forward,
        ]
        .into_iter()
        .map(u64::from)
        .sum()
    }
}

/// Policies with prefixes at least this long are found by a hash, the others by a search tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashThreshold {
    /// Bits of the local prefix.
    pub local_bits: u8,
    /// Bits of the remote prefix.
    pub remote_bits: u8,
}

/// What happens to packets that meet no policy (kernel: `xfrm_userpolicy_default`, Linux 5.15).
///
/// There is no way to set it here: it is everybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DefaultActions {
    /// To packets that come in.
    pub inbound: PolicyAction,
    /// To packets that are forwarded.
    pub forward: PolicyAction,
    /// To packets that leave.
    pub outbound: PolicyAction,
}
