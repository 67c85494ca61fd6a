//! What can be read of a Linux host that matters to IPsec, for whoever must judge it: the daemon at
//! its start, and `epochgate doctor`.
//!
//! [`firewall`] reads what `nft` and `iptables-save` print and says what becomes of a packet;
//! [`port`] tells who has a UDP port; [`esp`] names the kernel's algorithms. Nothing here runs a
//! program or changes anything.

pub mod esp;
pub mod firewall;
pub mod port;
