//! Two controllers, a loopback socket each, and kernels that agree to everything.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use epochgate_controller::config::{Config, TunnelConfig};
use epochgate_controller::io::{
    Command, CommandId, CommandOutcome, Datagram, SaId, XfrmEvent, XfrmOp, XfrmReply,
};
use epochgate_controller::{Controller, Input, Output, Timestamp};
use epochgate_crypto::Ring;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

/// Largest datagram that is read.
const DATAGRAM_MAX: usize = 4096;

/// One end.
struct End {
    controller: Controller,
    socket: UdpSocket,
    /// The end's address in its own configuration; its socket has another port.
    address: SocketAddr,
    inputs: VecDeque<Input>,
    wake_at: Option<Timestamp>,
    failed: Option<String>,
    done: u64,
}

/// What an end did that concerns the other.
enum Crossing {
    /// A control ping went through this outbound SA.
    Pinged(SaId),
}

/// Both.
pub(crate) struct Ends {
    client: End,
    server: End,
    started: Instant,
}

impl End {
    fn new(address: SocketAddr) -> Result<Self> {
        let socket = UdpSocket::bind((address.ip(), 0))?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            controller: Controller::new(Arc::new(Ring::new())),
            socket,
            address,
            inputs: VecDeque::new(),
            wake_at: None,
            failed: None,
            done: 0,
        })
    }

    /// Takes what has arrived. `from` is the other end.
    fn receive(&mut self, from: SocketAddr) -> Result<()> {
        let mut octets = [0; DATAGRAM_MAX];
        loop {
            match self.socket.recv(&mut octets) {
                Ok(length) => self.inputs.push_back(Input::Datagram(Datagram {
                    local: self.address,
                    remote: from,
                    payload: octets[..length].to_vec(),
                })),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Decides about all inputs and performs what comes out.
    fn work(
        &mut self,
        to: SocketAddr,
        now: Timestamp,
        crossings: &mut Vec<Crossing>,
    ) -> Result<()> {
        if self.wake_at.is_some_and(|at| at <= now) {
            self.inputs.push_back(Input::Timeout);
        }
        while let Some(input) = self.inputs.pop_front() {
            self.controller.handle(input, now);
            loop {
                match self.controller.poll_output() {
                    Output::Datagram(datagram) => {
                        self.socket.send_to(&datagram.payload, to)?;
                    }
                    Output::Xfrm(op, what) => {
                        let result = Ok(perform(&what));
                        self.inputs.push_back(Input::XfrmDone { op, result });
                    }
                    Output::Ping(ping) => {
                        crossings.push(Crossing::Pinged(ping.sa));
                        self.inputs.push_back(Input::PingReply {
                            nonce: ping.nonce,
                            from: ping.target,
                        });
                    }
                    Output::Answer(_, CommandOutcome::Failed(why)) => self.failed = Some(why),
                    Output::Answer(_, CommandOutcome::Done | CommandOutcome::Status(_)) => {
                        self.done += 1;
                    }
                    Output::Wait(until, _) => {
                        self.wake_at = until;
                        break;
                    }
                    // What these tunnels' configuration never asks for, or nobody waits for.
                    _ => {}
                }
            }
        }
        match &self.failed {
            Some(why) => bail!("{why}"),
            None => Ok(()),
        }
    }
}

/// A kernel that agrees to everything and on whose every SA a packet has arrived.
fn perform(op: &XfrmOp) -> XfrmReply {
    match op {
        XfrmOp::ReadOurs => XfrmReply::Ours {
            policies: Vec::new(),
            sas: Vec::new(),
        },
        XfrmOp::ReadPackets(_) => XfrmReply::Packets(1),
        _ => XfrmReply::Done,
    }
}

impl Ends {
    /// Both ends, not configured yet.
    pub(crate) fn new(client: SocketAddr, server: SocketAddr) -> Result<Self> {
        Ok(Self {
            client: End::new(client)?,
            server: End::new(server)?,
            started: Instant::now(),
        })
    }

    /// Configures both and lets them settle.
    pub(crate) fn configure(
        &mut self,
        inner: (IpAddr, IpAddr),
        client: Vec<Arc<TunnelConfig>>,
        server: Vec<Arc<TunnelConfig>>,
    ) -> Result<()> {
        let sides = [
            (&mut self.client, inner.0, client),
            (&mut self.server, inner.1, server),
        ];
        for (end, address, tunnels) in sides {
            end.inputs.push_back(Input::Addresses(vec![address]));
            end.inputs.push_back(Input::Configure(Config {
                tunnels,
                ..Config::default()
            }));
        }
        self.turn()
    }

    /// Asks the client, and goes on until it has said of every command that it is done, with at most
    /// `at_once` under way.
    pub(crate) fn ask(
        &mut self,
        commands: impl IntoIterator<Item = Command>,
        at_once: u64,
        limit: Duration,
    ) -> Result<u64> {
        let deadline = Instant::now() + limit;
        let before = self.client.done;
        let mut asked = 0;
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() || self.client.done - before < asked {
            while asked - (self.client.done - before) < at_once
                && let Some(command) = commands.next()
            {
                let id = CommandId(asked);
                self.client.inputs.push_back(Input::Command(id, command));
                asked += 1;
            }
            self.turn()?;
            self.wait()?;
            if Instant::now() > deadline {
                bail!(
                    "{} of {asked} done after {limit:?}",
                    self.client.done - before
                );
            }
        }
        Ok(asked)
    }

    /// Lets both ends do what is left to do, for so long.
    pub(crate) fn settle(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn()?;
            self.wait()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<()> {
        let now = self.now();
        let (client, server) = (&mut self.client, &mut self.server);
        let (to_client, to_server) = (client.socket.local_addr()?, server.socket.local_addr()?);
        let mut crossings = Vec::new();
        client.receive(server.address)?;
        client.work(to_server, now, &mut crossings)?;
        for Crossing::Pinged(sa) in crossings.drain(..) {
            let first = Input::Xfrm(XfrmEvent::FirstPacket(sa));
            server.inputs.push_back(first);
        }
        server.receive(client.address)?;
        server.work(to_client, now, &mut crossings)
    }

    /// Until a datagram comes, or a timer may be due.
    fn wait(&self) -> Result<()> {
        if !self.client.inputs.is_empty() || !self.server.inputs.is_empty() {
            return Ok(());
        }
        let mut sockets = [
            PollFd::new(self.client.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.server.socket.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut sockets, PollTimeout::from(10_u8))?;
        Ok(())
    }

    fn now(&self) -> Timestamp {
        let nanoseconds = self.started.elapsed().as_nanos();
        Timestamp::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// Addresses on loopback, with the port that IKE has.
pub(crate) const fn loopback(last: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 500)
}
