//! Waiting for whatever comes first: signals, timers, the kernel, clients, the network.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use epochgate_controller::{Input, Timestamp};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Interval, interval};

use crate::clock::Alarm;
use crate::control::{Asked, ControlServer};
use crate::firewall::Finding;
use crate::kernel::Kernel;
use crate::ping::Pinger;
use crate::udp::IkeSockets;

/// Where requests and changes of addresses come from.
pub struct Sources {
    /// Clients' requests.
    pub control: ControlServer,
    /// The host's addresses, each time that they or its routes change.
    pub addresses: mpsc::Receiver<Vec<IpAddr>>,
}

/// What came.
pub(super) enum Heard {
    Inputs(VecDeque<Input>),
    Alarm,
    Asked(Asked),
    Findings(Vec<Finding>),
    /// The host's addresses, after these or its routes have changed.
    Addresses(Vec<IpAddr>),
    Reload,
    Stop,
    Watchdog,
}

/// Everything that is waited for and needs nothing else.
pub(super) struct Ears {
    sources: Sources,
    alarm: Alarm,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    watchdog: Option<Interval>,
}

impl Ears {
    pub(super) fn open(sources: Sources) -> io::Result<Self> {
        Ok(Self {
            sources,
            alarm: Alarm::new()?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            // Twice per period that systemd allows (sd_watchdog_enabled(3)).
            watchdog: sd_notify::watchdog_enabled()
                .filter(|period| !period.is_zero())
                .map(|period| interval((period / 2).max(Duration::from_millis(1)))),
        })
    }

    /// Tells those who follow events that the daemon ends.
    pub(super) async fn take_leave(&self) {
        self.sources.control.take_leave().await;
    }

    pub(super) fn set_alarm(&mut self, at: Option<Timestamp>) -> io::Result<()> {
        self.alarm.set(at)
    }

    /// Waits. The network comes last in line and in bounded batches, so that a flood of datagrams
    /// keeps nobody else waiting.
    pub(super) async fn next(
        &mut self,
        kernel: &mut Kernel,
        sockets: &mut IkeSockets,
        pinger: &Pinger,
        findings: &mut mpsc::Receiver<Vec<Finding>>,
    ) -> io::Result<Heard> {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Ok(Heard::Stop),
            _ = self.interrupt.recv() => Ok(Heard::Stop),
            _ = self.hang_up.recv() => Ok(Heard::Reload),
            () = tick(self.watchdog.as_mut()) => Ok(Heard::Watchdog),
            rang = self.alarm.rings() => rang.map(|()| Heard::Alarm),
            event = kernel.event() => match event {
                Ok(event) => Ok(one(Input::Xfrm(event))),
                Err(error) => Err(io::Error::other(error)),
            },
            replies = pinger.receive() => Ok(Heard::Inputs(
                replies
                    .into_iter()
                    .map(|(nonce, from)| Input::PingReply { nonce, from })
                    .collect(),
            )),
            Some(addresses) = self.sources.addresses.recv() => {
                Ok(Heard::Addresses(addresses))
            }
            Some(found) = findings.recv() => Ok(Heard::Findings(found)),
            asked = self.sources.control.next() => Ok(Heard::Asked(asked)),
            datagrams = sockets.receive() => Ok(Heard::Inputs(
                datagrams.into_iter().map(Input::Datagram).collect(),
            )),
        }
    }
}

fn one(input: Input) -> Heard {
    Heard::Inputs(VecDeque::from([input]))
}

async fn tick(watchdog: Option<&mut Interval>) {
    match watchdog {
        Some(watchdog) => {
            watchdog.tick().await;
        }
        None => std::future::pending().await,
    }
}
