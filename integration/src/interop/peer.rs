//! Peers of all kinds, asked for the same things.

use super::{Connection, Program};
use crate::libreswan::Libreswan;
use crate::net::Host;
use crate::peer::StrongSwan;
use crate::root::Root;

/// A running peer.
#[derive(Debug)]
pub enum Peer {
    /// charon.
    StrongSwan(StrongSwan),
    /// pluto.
    Libreswan(Libreswan),
}

impl Peer {
    /// Starts the program on a host, with its end of the connection.
    #[track_caller]
    pub fn start(program: Program, host: &Host, connection: &Connection) -> Self {
        let root = match program.root() {
            Some(name) => Root::of(name),
            None => Root::Machine,
        };
        connection.give_peer(host);
        match program {
            Program::StrongSwan5 | Program::StrongSwan6 => {
                Self::StrongSwan(StrongSwan::start_from(
                    &root,
                    host,
                    &connection.strongswan(),
                    &connection.strongswan_options(),
                ))
            }
            Program::Libreswan4 | Program::Libreswan5 => {
                let files = connection.libreswan(program);
                Self::Libreswan(Libreswan::start(&root, host, &files))
            }
        }
    }

    /// Begins the connection, and does not wait for it.
    pub fn initiate(&self) {
        self.initiate_child("net");
    }

    /// The same with the Child SA of this name.
    pub fn initiate_child(&self, name: &str) {
        match self {
            Self::StrongSwan(it) => {
                it.try_swanctl(&["--initiate", "--child", name, "--timeout", "-1"]);
            }
            Self::Libreswan(it) => it.initiate(name),
        }
    }

    /// Rekeys the Child SA; the exchange runs on after this returns.
    pub fn rekey_child(&self) {
        match self {
            Self::StrongSwan(it) => it.rekey_child("net"),
            Self::Libreswan(it) => it.rekey_child(),
        }
    }

    /// Rekeys the IKE SA; the exchange runs on after this returns.
    pub fn rekey_ike(&self) {
        match self {
            Self::StrongSwan(it) => {
                it.swanctl(&["--rekey", "--ike", "net"]);
            }
            Self::Libreswan(it) => it.rekey_ike(),
        }
    }

    /// Deletes the IKE SA with its Child SA.
    pub fn terminate(&self) {
        match self {
            Self::StrongSwan(it) => it.terminate(),
            Self::Libreswan(it) => it.terminate(),
        }
    }

    /// Makes it wait until it is told to begin again: libreswan begins by itself when its peer
    /// deletes what it was told to have.
    pub fn rest(&self) {
        match self {
            Self::StrongSwan(_) => {}
            Self::Libreswan(it) => it.terminate(),
        }
    }

    /// How many Child SAs it holds to be installed.
    pub fn installed(&self) -> usize {
        match self {
            Self::StrongSwan(it) => it.installed(),
            Self::Libreswan(it) => it.installed(),
        }
    }

    /// Its SAs, for a person.
    pub fn sas(&self) -> String {
        match self {
            Self::StrongSwan(it) => it.sas(),
            Self::Libreswan(it) => it.sas(),
        }
    }

    /// Name and version, as it says itself.
    pub fn version(&self) -> String {
        match self {
            Self::StrongSwan(it) => it.version(),
            Self::Libreswan(it) => it.version(),
        }
    }

    /// Ends it by SIGKILL: nobody is told anything.
    pub fn kill(self) {
        match self {
            Self::StrongSwan(it) => it.kill(),
            Self::Libreswan(it) => it.kill(),
        };
    }
}
