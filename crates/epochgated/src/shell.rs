//! The event loop: one [`Controller`], everything that it hears and everything that it asks for.
//!
//! One input at a time goes in; then all outputs are performed, in order. What performing them
//! brings (the kernel's answers, a ping that could not be sent) goes in before anything new is
//! waited for.

mod chores;
mod hears;
mod report;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use epochgate_control::{Request, Response};
use epochgate_controller::config::{Config, TunnelName};
use epochgate_controller::event::{Event, EventKind};
use epochgate_controller::io::{
    AddressSpec, Command, CommandId, CommandOutcome, Datagram, RouteSpec, XfrmOp,
};
use epochgate_controller::{Controller, Input, Output, Timestamp};
use sd_notify::NotifyState;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use self::chores::Chores;
use self::hears::{Ears, Heard};
use self::report::Waiting;
use crate::control::Asked;
use crate::firewall::{self, Finding};
use crate::kernel::Kernel;
use crate::ping::Pinger;
use crate::route::Routes;
use crate::settings::Settings;
use crate::udp::IkeSockets;
use crate::virtual_address::VirtualAddresses;
use crate::{clock, log};

pub use self::hears::Sources;

/// Time that stopping may take; then the process ends with what is done.
const STOP_TIME: Duration = Duration::from_secs(5);
/// Answers of the firewall examination that wait for the loop.
const FINDINGS_WAITING_MAX: usize = 4;

/// The parts that perform what the controller asks for.
pub struct Hands {
    /// SAs and policies.
    pub kernel: Kernel,
    /// IKE's datagrams.
    pub sockets: IkeSockets,
    /// Control pings.
    pub pinger: Pinger,
    /// Routes, and source addresses.
    pub routes: Routes,
    /// Virtual addresses, and what servers tell of name resolution.
    pub virtual_addresses: VirtualAddresses,
}

/// The running daemon.
pub struct Shell {
    controller: Controller,
    settings: Settings,
    hands: Hands,
    pending: VecDeque<Input>,
    /// Who waits for which command's answer.
    asked: HashMap<CommandId, Waiting>,
    last_command: u64,
    stop: Option<CommandId>,
    stopped: bool,
    wake_at: Option<Timestamp>,
    now: Timestamp,
    addresses: Vec<IpAddr>,
    firewall: Firewall,
    chores: Chores,
}

/// What the examination of the firewall found, for `status`.
struct Firewall {
    sender: mpsc::Sender<Vec<Finding>>,
    results: mpsc::Receiver<Vec<Finding>>,
    known: Vec<Finding>,
}

impl Shell {
    /// A shell around a controller that knows nothing yet.
    #[must_use]
    pub fn new(controller: Controller, settings: Settings, hands: Hands) -> Self {
        let (sender, results) = mpsc::channel(FINDINGS_WAITING_MAX);
        Self {
            controller,
            settings,
            hands,
            pending: VecDeque::new(),
            asked: HashMap::new(),
            last_command: 0,
            stop: None,
            stopped: false,
            wake_at: None,
            now: Timestamp::ZERO,
            addresses: Vec::new(),
            firewall: Firewall {
                sender,
                results,
                known: Vec::new(),
            },
            chores: Chores::default(),
        }
    }

    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// When a descriptor that must work fails; the policies then stay as they are.
    pub async fn run(
        &mut self,
        config: Config,
        addresses: Vec<IpAddr>,
        sources: Sources,
    ) -> io::Result<()> {
        let mut ears = Ears::open(sources)?;
        self.addresses.clone_from(&addresses);
        self.hear(Input::Addresses(addresses)).await?;
        let left = self.hands.virtual_addresses.own();
        self.hear(Input::LeftAddresses(left)).await?;
        let examined = config.clone();
        self.configure(config).await?;
        match self.hands.routes.remove_leftovers().await {
            Ok(0) => {}
            Ok(count) => info!("routes of an earlier run removed: {count}"),
            Err(error) => warn!("{error}"),
        }
        notify(&[NotifyState::Ready]);
        info!("ready");
        // Other programs do that, and starting them takes a while.
        self.examine(examined);
        let mut stop_at = None;
        while !self.stopped {
            let due = earliest(self.chores.due(), stop_at);
            ears.set_alarm(earliest(self.wake_at, due))?;
            let heard = ears
                .next(
                    &mut self.hands.kernel,
                    &mut self.hands.sockets,
                    &self.hands.pinger,
                    &mut self.firewall.results,
                )
                .await?;
            self.react(heard).await?;
            self.do_chores().await?;
            if self.stop.is_some() {
                let at = *stop_at.get_or_insert(self.now + STOP_TIME);
                if at <= self.now {
                    warn!("stopping took longer than {STOP_TIME:?}: ending with what is done");
                    break;
                }
            }
        }
        ears.take_leave().await;
        let counters = self.hands.sockets.counters();
        debug!(?counters, "IKE sockets");
        Ok(())
    }

    async fn react(&mut self, heard: Heard) -> io::Result<()> {
        match heard {
            Heard::Inputs(inputs) => {
                for input in inputs {
                    self.hear(input).await?;
                }
                Ok(())
            }
            Heard::Alarm => self.hear(Input::Timeout).await,
            Heard::Asked(asked) => self.ask(asked).await,
            Heard::Addresses(addresses) => {
                if let Err(error) = self.hands.routes.refresh().await {
                    warn!("a route of ours is missing: {error}");
                }
                if self.addresses == addresses {
                    return Ok(());
                }
                self.addresses.clone_from(&addresses);
                self.hear(Input::Addresses(addresses)).await
            }
            Heard::Findings(findings) => {
                self.tell(findings);
                Ok(())
            }
            Heard::Reload => {
                self.reload().await?;
                Ok(())
            }
            Heard::Stop => self.begin_stop().await,
            Heard::Watchdog => {
                notify(&[NotifyState::Watchdog]);
                Ok(())
            }
        }
    }

    /// One input, then everything that follows from it.
    async fn hear(&mut self, input: Input) -> io::Result<()> {
        self.pending.push_back(input);
        while let Some(input) = self.pending.pop_front() {
            self.now = clock::now()?;
            self.controller.set_wall_clock(clock::wall());
            let moved = if let Input::XfrmDone { op, .. } = &input {
                self.chores.moved(*op)
            } else {
                None
            };
            self.controller.handle(input, self.now);
            loop {
                match self.controller.poll_output() {
                    Output::Wait(until, _why) => {
                        self.wake_at = until;
                        break;
                    }
                    Output::Event(event) => {
                        log::event(&event);
                        self.chores.event(&event, moved, self.now);
                    }
                    output => self.perform(output).await,
                }
            }
        }
        Ok(())
    }

    async fn perform(&mut self, output: Output) {
        match output {
            Output::Datagram(datagram) => self.send(&datagram),
            Output::Keepalive { local, remote } => {
                if let Err(error) = self.hands.sockets.send_keepalive(local, remote) {
                    debug!("cannot send a NAT keepalive from {local} to {remote}: {error}");
                }
            }
            Output::Xfrm(op, what) => {
                if let XfrmOp::UpdatePolicies(policies) = &what
                    && let Some(sa) = Chores::target(policies)
                    && let Some(usage) = self.hands.kernel.usage(sa).await
                {
                    self.chores.moving(op, sa, usage.packets);
                }
                let result = self.hands.kernel.perform(what).await;
                if let Err(error) = &result {
                    debug!("{error}");
                }
                self.pending.push_back(Input::XfrmDone { op, result });
            }
            Output::Ping(ping) => {
                let interface = ping
                    .if_id
                    .and_then(|it| self.hands.kernel.interface_name(it));
                match self.hands.pinger.send(&ping, interface) {
                    Ok(()) => self.chores.pinged(ping.sa),
                    Err(error) => {
                        debug!("{error}");
                        let nonce = ping.nonce;
                        self.pending.push_back(Input::PingFailed { nonce, error });
                    }
                }
            }
            Output::FindSource(destination) => {
                let source = self.hands.routes.source_for(destination).await;
                self.pending.push_back(Input::SourceFound {
                    destination,
                    source,
                });
            }
            Output::AddRoute(route) => {
                let Hands { kernel, routes, .. } = &mut self.hands;
                let outcome = routes
                    .add(route, |if_id| kernel.interface_index(if_id))
                    .await;
                self.route_done(route, outcome);
            }
            Output::RemoveRoute(route) => {
                let outcome = self.hands.routes.remove(route).await;
                self.route_done(route, outcome);
            }
            Output::AddAddress(address) => {
                let outcome = self.hands.virtual_addresses.add(address.clone()).await;
                self.address_done(address, outcome).await;
            }
            Output::RemoveAddress(address) => {
                let outcome = self.hands.virtual_addresses.remove(&address).await;
                self.address_done(address, outcome).await;
            }
            Output::Resolver(told) => {
                if let Err(error) = self.hands.virtual_addresses.tell_resolver(&told) {
                    warn!(tunnel = %told.tunnel, "cannot write down the DNS servers: {error}");
                }
            }
            Output::Answer(id, outcome) => self.answer(id, outcome).await,
            // Handled where outputs are drained.
            Output::Event(_) | Output::Wait(..) => {}
        }
    }

    fn send(&mut self, datagram: &Datagram) {
        if let Err(error) = self.hands.sockets.send(datagram) {
            // IKE retransmits; a lasting error shows as an attempt that fails.
            debug!(
                "cannot send an IKE message from {} to {}: {error}",
                datagram.local, datagram.remote
            );
        }
    }

    fn route_done(&mut self, route: RouteSpec, outcome: Result<(), String>) {
        if let Err(error) = outcome {
            self.pending.push_back(Input::RouteFailed { route, error });
        }
    }

    /// The host's addresses have changed: the controller is told now, since pings wait for it.
    async fn address_done(&mut self, address: AddressSpec, outcome: Result<(), String>) {
        if let Err(error) = outcome {
            self.pending
                .push_back(Input::AddressFailed { address, error });
        }
        match self.hands.virtual_addresses.all().await {
            Ok(addresses) if addresses != self.addresses => {
                self.addresses.clone_from(&addresses);
                self.pending.push_back(Input::Addresses(addresses));
            }
            Ok(_) => {}
            Err(error) => warn!("{error}"),
        }
    }

    async fn answer(&mut self, id: CommandId, outcome: CommandOutcome) {
        if self.stop == Some(id) {
            self.stopped = true;
        }
        let Some(client) = self.asked.remove(&id) else {
            return;
        };
        let response = match outcome {
            CommandOutcome::Done => Response::Done,
            CommandOutcome::Status(report) => self.report(*report, client.tunnel).await,
            CommandOutcome::Failed(message) => Response::Failed { message },
        };
        // A client that hung up does not want it any more.
        let _ = client.answer.send(response);
    }

    async fn ask(&mut self, asked: Asked) -> io::Result<()> {
        let by = asked.by;
        let told = |what: &str, tunnel: String| {
            info!(tunnel, by, "asked to {what}");
            TunnelName(tunnel.into())
        };
        let mut only = None;
        let command = match asked.request {
            Request::Up { tunnel } => Command::Up(told("start", tunnel)),
            Request::Down { tunnel } => Command::Down(told("go down", tunnel)),
            Request::Rekey { tunnel } => Command::Rekey(told("rekey", tunnel)),
            Request::RekeyIke { tunnel } => Command::RekeyIke(told("rekey the IKE SA", tunnel)),
            Request::Reauthenticate { tunnel } => {
                Command::Reauthenticate(told("authenticate anew", tunnel))
            }
            Request::Status { tunnel } => {
                only = tunnel;
                Command::Status
            }
            // The control socket answers it.
            Request::Events(_) => Command::Status,
            Request::Reload => {
                info!(by, "asked to reload the configuration");
                let response = self.reload().await?;
                let _ = asked.answer.send(response);
                return Ok(());
            }
        };
        let id = self.next_command();
        let waiting = Waiting {
            answer: asked.answer,
            tunnel: only,
        };
        self.asked.insert(id, waiting);
        // Answers to clients that hung up come late or never: forget them.
        self.asked.retain(|_, client| !client.answer.is_closed());
        self.hear(Input::Command(id, command)).await
    }

    async fn reload(&mut self) -> io::Result<Response> {
        notify(&[NotifyState::Reloading, monotonic()?]);
        let response = match self.settings.reload() {
            Ok((daemon, config)) => {
                if daemon != self.settings.daemon {
                    warn!("what changed in [daemon] takes effect when epochgated starts again");
                }
                self.examine(config.clone());
                self.configure(config).await?;
                info!("configuration reloaded");
                Response::Done
            }
            Err(error) => {
                let message = error.to_string();
                warn!("the configuration has mistakes, the old one stays in force:");
                message.lines().for_each(|line| warn!("{line}"));
                Response::Failed { message }
            }
        };
        notify(&[NotifyState::Ready]);
        Ok(response)
    }

    /// A new configuration takes effect.
    async fn configure(&mut self, config: Config) -> io::Result<()> {
        let names = config.tunnels.iter().map(|it| it.name.clone()).collect();
        self.chores.keep(&names, self.now);
        self.hear(Input::Configure(config)).await
    }

    /// Looks for rules of the firewall that spoil what this configuration protects.
    fn examine(&self, config: Config) {
        let findings = self.firewall.sender.clone();
        tokio::spawn(async move {
            // Only a shell that is gone does not want to know.
            let _ = findings.send(firewall::examine(&config).await).await;
        });
    }

    /// What is due beside the controller's own timers.
    async fn do_chores(&mut self) -> io::Result<()> {
        if self.chores.due().is_none() {
            return Ok(());
        }
        let now = clock::now()?;
        while let Some(release) = self.chores.next_release(now) {
            // An SA that is gone counts nothing.
            if let Some(usage) = self.hands.kernel.usage(release.sa).await {
                self.chores.counted(release, usage.packets, clock::now()?);
            }
        }
        if let Some(summary) = self.chores.summary(now) {
            notify(&[NotifyState::Status(&summary)]);
        }
        Ok(())
    }

    async fn begin_stop(&mut self) -> io::Result<()> {
        if self.stop.is_some() {
            return Ok(());
        }
        notify(&[NotifyState::Stopping]);
        info!("stopping");
        let id = self.next_command();
        self.stop = Some(id);
        self.hear(Input::Command(id, Command::Shutdown)).await
    }

    fn next_command(&mut self) -> CommandId {
        self.last_command += 1;
        CommandId(self.last_command)
    }

    fn tell(&mut self, findings: Vec<Finding>) {
        for finding in &findings {
            if !self.firewall.known.contains(finding) {
                log::event(&Event {
                    tunnel: Some(finding.tunnel.clone()),
                    epoch: None,
                    kind: EventKind::Attention {
                        reason: finding.text.clone(),
                    },
                });
            }
        }
        self.firewall.known = findings;
    }
}

fn earliest(left: Option<Timestamp>, right: Option<Timestamp>) -> Option<Timestamp> {
    [left, right].into_iter().flatten().min()
}

fn monotonic() -> io::Result<NotifyState<'static>> {
    NotifyState::monotonic_usec_now()
}

/// Tells systemd, if it wants to know (sd_notify(3)).
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!("cannot notify the service manager: {error}");
    }
}
