//! Typed access to the Linux kernel's IPsec stack (XFRM) over netlink.
//!
//! [`Socket`] talks to the kernel: it adds, updates, deletes and lists SAs ([`Sa`], the SAD) and
//! policies ([`Policy`], the SPD), one by one or in batches. [`EventSocket`] listens to what the
//! kernel tells by itself ([`XfrmEvent`]). With the feature `tokio` both have asynchronous twins,
//! `AsyncSocket` and `AsyncEventSocket`. [`socket_policy`] gives single sockets policies of their
//! own, and [`counters`] reads `/proc/net/xfrm_stat`.
//!
//! Data's way: a type of this crate → `wire` (bytes, wiped after use) → netlink socket → kernel,
//! and back. Keys are wiped when dropped and never printed. There is no operation that flushes:
//! whoever uses this crate touches single SAs and policies only.
//!
//! All calls need CAP_NET_ADMIN. A socket belongs to the network namespace of the thread that
//! opened it, whichever thread uses it later.
//!
//! ```no_run
//! // Not run here: it needs root. The tests of this crate run `examples/` on a real kernel.
//! use std::ops::ControlFlow;
//!
//! use epochgate_xfrm::{SaFilter, Socket};
//!
//! let mut socket = Socket::open()?;
//! let end = socket.for_each_sa(&SaFilter::ALL, |entry| {
//!     println!("{:?}: {} packets", entry.sa.id(), entry.usage.packets);
//!     ControlFlow::Continue(())
//! })?;
//! if end.changed {
//!     println!("the table changed meanwhile: entries may be missing");
//! }
//! # Ok::<(), epochgate_xfrm::XfrmError>(())
//! ```
//!
//! # Features
//!
//! - `tokio`: `AsyncSocket` and `AsyncEventSocket`.
//! - `kernel`: builds the tests that need root and a kernel with ESP.

#![warn(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod algorithm;
#[cfg(feature = "tokio")]
mod async_socket;
mod attribute;
pub mod counters;
mod dump;
mod error;
mod event;
mod event_socket;
mod exchange;
mod id;
mod info;
mod key;
mod netlink;
mod policy;
mod request;
mod sa;
mod selector;
mod socket;
pub mod socket_policy;
mod wire;

pub use algorithm::{Aead, Cipher, Compression, Integrity, Protection};
#[cfg(feature = "tokio")]
pub use async_socket::{AsyncEventSocket, AsyncSocket};
pub use attribute::{Iptfs, Offload, OffloadFlags, RawAttribute, SecurityContext};
pub use dump::{DumpEnd, SaFilter};
pub use error::{Cause, DecodeError, Operation, Problem, Result, XfrmError};
pub use event::{
    Acquire, EventFlags, EventGroup, EventState, EventThresholds, Expire, Mapping, PolicyExpire,
    XfrmEvent,
};
pub use event_socket::EventSocket;
pub use id::{Mark, Mode, Protocol, Reqid, SaId, SaRef, Spi};
pub use info::{DefaultActions, HashThreshold, SadInfo, SpdInfo};
pub use key::Key;
pub use policy::{
    AlgorithmMasks, Policy, PolicyAction, PolicyDirection, PolicyEntry, PolicyFlags, PolicyId,
    PolicyKey, Template,
};
pub use request::Op;
pub use sa::{
    Encap, EncapKind, Limit, Limits, ReplayState, ReplayWindow, Sa, SaDirection, SaEntry,
    SaExtraFlags, SaFaults, SaFlags, SpiRequest, Usage,
};
pub use selector::{InvalidSelector, PortMatch, Prefix, Selector};
pub use socket::Socket;

/// The example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Whoever uses this crate may move everything of it to another thread.
#[cfg(test)]
mod tests {
    use super::*;

    fn can_be_sent<T: Send + Sync + std::fmt::Debug + 'static>() {}

    #[test]
    fn everything_can_be_sent_to_another_thread() {
        can_be_sent::<Socket>();
        can_be_sent::<EventSocket>();
        #[cfg(feature = "tokio")]
        can_be_sent::<AsyncSocket>();
        #[cfg(feature = "tokio")]
        can_be_sent::<AsyncEventSocket>();
        can_be_sent::<SaEntry>();
        can_be_sent::<PolicyEntry>();
        can_be_sent::<XfrmEvent>();
        can_be_sent::<XfrmError>();
        can_be_sent::<DumpEnd>();
    }
}
