//! Tests of epochgate on a real kernel: a small framework of namespaces, links, NAT,
//! captures, traffic and peers.
//!
//! A test draws its topology, starts daemons and traffic in it, and judges by what was
//! captured on the wire and by what the traffic's own accounts say:
//!
//! ```no_run
//! use epochgate_integration::{Selectors, Topology, Trace, audit};
//! use std::time::Duration;
//!
//! // client 192.0.2.2 ── router (masquerade) ── 203.0.113.1 server      50 ms round trip
//! let net = Topology::new("cold").masquerade().round_trip(Duration::from_millis(50)).build();
//! let wire = net.capture_client();
//! net.client.run("ping -c 1 203.0.113.1");
//! let trace = Trace::of(wire.stop(), &net.client_keys());
//! audit::nothing_in_clear(&trace, &Selectors::new("10.1.0.0/16", "10.2.0.0/16")).expect("held");
//! ```
//!
//! | module | what it gives |
//! |---|---|
//! | [`net`] | [`World`], [`Host`], links, routes: network namespaces that go whatever happens |
//! | [`fault`] | masquerading NAT; delay and loss; rules that drop or delay chosen packets |
//! | [`topology`] | [`Topology`]: client, router, server and the LANs behind them, with addresses |
//! | [`office`] | [`Office`]: any number of clients behind one VPN Masquerade, and their server |
//! | [`capture`] | [`Capture`]: every packet of an interface, none lost, with its time |
//! | [`chosen_spis`] | a daemon whose first SPIs are chosen, to force collisions |
//! | [`documents`] | the commands that documents show, and a stage to run them on |
//! | [`esp`] | [`KeyLog`], [`Trace`]: the inner packets of captured ESP; prints as a ladder |
//! | [`audit`] | the product's invariants, judged on a [`Trace`] |
//! | [`interop`] | the cells of the interoperation table: rows, peers, roles |
//! | [`lab_nat`] | a NAT with VPN Masquerade that forwards real IKE and ESP |
//! | [`libreswan`] | libreswan's daemon on a host |
//! | [`manual`] | the configurations that the documentation shows, on a topology's hosts |
//! | [`pace`] | how often watchers wake, which is what virtual time is spent on |
//! | [`peer`] | epochgate's daemon and command, and strongSwan's, on a host |
//! | [`pki`] | an authority and certificates for both ends |
//! | [`root`] | where a peer's programs are: on this machine, or in a root of their own |
//! | [`stalls`] | how long the machine itself let everybody wait |
//! | [`tables`] | what is in the SAD and SPD; a tunnel made with `ip xfrm` |
//! | [`traffic`] | UDP and TCP flows with exact accounts |
//! | [`watch`] | captures and keys of both ends at once, judged by all invariants |
//!
//! Everything here panics when something it needs fails: its callers are tests. It needs root
//! and a kernel with ESP, which `scripts/lab` provides.

#![allow(clippy::panic, reason = "a test framework reports by failing its test")]

pub mod audit;
pub mod capture;
pub mod chosen_spis;
pub mod documents;
pub mod esp;
pub mod fault;
pub mod interop;
pub mod lab_nat;
pub mod libreswan;
pub mod manual;
pub mod net;
pub mod office;
pub mod pace;
pub mod peer;
pub mod pki;
mod ring;
pub mod root;
pub mod stalls;
mod sys;
pub mod tables;
pub mod topology;
pub mod traffic;
pub mod watch;

pub use audit::Selectors;
pub use capture::{Capture, Packet, Record, Timestamp};
pub use esp::{InnerPacket, KeyLog, Trace};
pub use fault::Packets;
pub use lab_nat::{LabCounters, LabNat};
pub use libreswan::Libreswan;
pub use net::{Host, Iface, World};
pub use office::Office;
pub use pace::Pace;
pub use peer::{Epochgate, StrongSwan};
pub use root::Root;
pub use stalls::Stalls;
pub use tables::ManualTunnel;
pub use topology::Topology;
pub use traffic::{Account, TcpFlow, UdpFlow};
pub use watch::{Judged, Watch};
