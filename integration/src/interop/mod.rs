//! Interoperation with other IKEv2 daemons, as a table: each cell is one [`Row`] with one
//! [`Program`] at the other end and epochgate in one [`Role`].
//!
//! ```text
//! client ─────── router (masquerades, or not) ─────── server        20 ms round trip
//! 10.1.0.1                                          10.2.0.1
//! ```
//!
//! A cell passes if the row's story ended as it should, and on the wire at epochgate's end nothing
//! of the protected traffic was in clear, and nothing that epochgate sent left unproven. It fails
//! by a panic. `scripts/interop` runs them all; kernel tests run some.

mod bench;
mod connection;
mod peer;
mod rows;

pub use bench::Bench;
pub use connection::{Algorithms, Connection, Proof, Suite, Version};
pub use peer::Peer;
pub use rows::ROWS;

use std::fmt;

/// What the other end runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// strongSwan 5.9, as this machine has it installed.
    StrongSwan5,
    /// strongSwan 6.0.
    StrongSwan6,
    /// libreswan 4.10.
    Libreswan4,
    /// libreswan 5.
    Libreswan5,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::StrongSwan5,
        Self::StrongSwan6,
        Self::Libreswan4,
        Self::Libreswan5,
    ];

    /// How it is called on the command line and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::StrongSwan5 => "strongswan-5.9",
            Self::StrongSwan6 => "strongswan-6.0",
            Self::Libreswan4 => "libreswan-4.10",
            Self::Libreswan5 => "libreswan-5",
        }
    }

    /// What `scripts/lab.d/peers` calls its root, if it has one of its own.
    pub fn root(self) -> Option<&'static str> {
        match self {
            Self::StrongSwan5 => None,
            Self::StrongSwan6 | Self::Libreswan4 | Self::Libreswan5 => Some(self.name()),
        }
    }

    /// Whether it is a strongSwan.
    pub fn is_strongswan(self) -> bool {
        matches!(self, Self::StrongSwan5 | Self::StrongSwan6)
    }
}

/// Which end epochgate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one behind the router: it begins.
    Client,
    /// The one with the public address.
    Server,
}

impl Role {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Client, Self::Server];

    /// How it is called on the command line and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy)]
pub struct Row {
    /// How it is called on the command line.
    pub name: &'static str,
    /// What a passed cell shows.
    pub title: &'static str,
    /// Plays it; panics if it fails.
    pub play: fn(Cell) -> Outcome,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Who plays.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// The other end.
    pub program: Program,
    /// What epochgate is.
    pub ours: Role,
    /// The row's name.
    pub row: &'static str,
}

impl Cell {
    /// Plays it; panics if it fails.
    #[track_caller]
    pub fn play(self) -> Outcome {
        let row = ROWS.iter().find(|row| row.name == self.row);
        let row = row.unwrap_or_else(|| panic!("there is no row {}", self.row));
        (row.play)(self)
    }
}

/// How a cell that did not fail ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// As it should.
    Passed(Counts),
    /// It was not played, for this reason.
    NotTried(&'static str),
}

impl Outcome {
    /// The counts of a cell that must be played.
    #[track_caller]
    pub fn passed(self) -> Counts {
        match self {
            Self::Passed(counts) => counts,
            Self::NotTried(reason) => panic!("not tried: {reason}"),
        }
    }
}

/// What was counted in a cell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams from epochgate's network to the peer's.
    pub ours: Tally,
    /// Datagrams from the peer's network to epochgate's.
    pub peers: Tally,
    /// The peer's name and version, as it says itself.
    pub version: String,
    /// Something that a reader of the table should know.
    pub note: Option<String>,
}

/// Datagrams of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many the sending kernel took.
    pub sent: usize,
    /// How many of those never arrived.
    pub lost: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.lost += other.lost;
    }
}
