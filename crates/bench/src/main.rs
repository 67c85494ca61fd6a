//! Measures what epochgate costs: `epochgate-bench ike`. What it prints is for people; its last line
//! is JSON.
//!
//! Both ends are real controllers with the daemon's cryptography, in one process, exchanging real
//! UDP datagrams over loopback. The kernel's IPsec is faked: every operation succeeds at once, and
//! every control ping is answered.

mod cost;
mod ends;
mod ike;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures what epochgate costs.
#[derive(Debug, Parser)]
#[command(name = "epochgate-bench", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Handshakes and rekeys: CPU time of both ends together, memory of one end.
    Ike(ike::Plan),
}

fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Ike(plan) => ike::run(&plan),
    }
}
