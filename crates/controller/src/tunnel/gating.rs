//! What an epoch must show before traffic uses it.
//!
//! In a product it is always proof. The feature `ungated` adds the way of other IKE daemons, for
//! `scripts/evaluate` to compare with: no configuration leads there, and nothing but a program that
//! is built with that feature and asks for it ([`Controller::ungated`](crate::Controller::ungated)).

/// When traffic may use an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Gating {
    /// When it is proven (R2, R8).
    #[default]
    Proven,
    /// As soon as its SAs are in the kernel. Nothing is pinged; IKE's liveness checks (RFC 7296
    /// §2.4) after `ping.idle` of silence are all that notices a dead path.
    #[cfg(feature = "ungated")]
    Negotiated,
}

impl Gating {
    /// Whether epochs are proven before traffic uses them.
    pub(crate) const fn proves(self) -> bool {
        match self {
            Self::Proven => true,
            #[cfg(feature = "ungated")]
            Self::Negotiated => false,
        }
    }
}
