//! A seeded world for the controller: network, kernel model, applications, invariants.
//!
//! A [`World`] runs the daemon's own `Controller` on any number of nodes. Its time is a number, its
//! chance comes from a seed, and the invariants of [`invariants`] are checked after every step, so
//! that a seed which violates one replays it exactly.

pub mod conformance;
mod crypto;
pub mod diagram;
mod foreign;
pub mod invariants;
pub mod kernel;
pub mod network;
mod node;
pub mod office;
pub mod packet;
pub mod pair;
mod quick_crypto;
pub mod random;
pub mod scenario;
pub mod shrink;
pub mod trace;
mod traffic;
mod world;

pub use invariants::Violation;
pub use node::Node;
pub use quick_crypto::QuickCrypto;
pub use traffic::Account;
pub use world::{Defect, NatId, NodeId, World};
