//! The epochgate daemon: everything around the pure controller that touches the system.
//!
//! ```text
//! udp ─────────┐                                      ┌─ udp
//! ping ────────┤                                      ├─ ping
//! kernel ──────┤                                      ├─ kernel
//! addresses ───┼─→ shell ─ Input → Controller → Output ┼─ route
//! control ─────┤                                      ├─ log
//! signals ─────┘                                      └─ control
//! ```
//!
//! [`daemon`] puts the parts together, after [`startup`] has checked what must be true; [`shell`]
//! is the event loop.

pub mod addresses;
pub mod cli;
pub mod clock;
pub mod control;
pub mod daemon;
pub mod feed;
pub mod firewall;
pub mod kernel;
pub mod leftovers;
pub mod log;
pub mod ping;
pub mod route;
pub mod route_netlink;
pub mod settings;
pub mod shell;
pub mod startup;
mod sys;
pub mod sysctl;
pub mod udp;
pub mod virtual_address;
