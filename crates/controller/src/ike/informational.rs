//! INFORMATIONAL (RFC 7296 §1.4, §2.4): Deletes, liveness checks, and the end of an IKE SA.

use epochgate_ike_wire::{Delete, ExchangeType, Message, NotifyType, Payload};

use crate::Timestamp;
use crate::io::Datagram;

use super::context::{Context, Name};
use super::established::{Asked, Established, Outstanding, Task};
use super::ike_rekey::IkeRekeying;
use super::init::only;
use super::payloads::Payloads;
use super::sa::{IkeSa, Next};
use super::session::{InFlight, Received, ReplyTo, Request, Session};
use super::{CloseReason, IkeEvent};

impl Established {
    /// Answers the peer's INFORMATIONAL request; an empty one asks whether we live.
    pub(super) fn answer_informational(
        mut self,
        ctx: &mut Context<'_>,
        reply_to: ReplyTo,
        payloads: &Payloads,
    ) -> Next {
        if payloads.notify(NotifyType::AUTHENTICATION_FAILED).is_some() {
            // The initiator could not verify our AUTH (RFC 7296 §2.21.2).
            let reason = format!(
                "the peer refuses our authentication as {}: check psk and ids of tunnel {} on both \
                 ends",
                self.config.local.id, self.config.name
            );
            return self.finish(
                ctx,
                reply_to,
                &[],
                CloseReason::AuthenticationFailed(reason),
            );
        }
        if payloads.deletes.contains(&Delete::IkeSa) {
            return self.ike_deleted(ctx, reply_to);
        }
        self.hear_auth_lifetime(ctx, payloads);
        let about_paths = match self.answer_mobility(ctx, &reply_to, payloads) {
            Ok(about_paths) => about_paths,
            Err(refusal) => return self.respond(ctx, reply_to, &only(refusal)),
        };
        let mut ours = Vec::new();
        for spi in payloads.deletes.iter().flat_map(esp_spis) {
            let found = self
                .children
                .iter()
                .find(|(_, child)| child.outbound.0.get() == spi)
                .map(|(id, child)| (*id, child.inbound, child.tunnel));
            let creating = match &mut self.outstanding {
                Some(Outstanding {
                    asked: Asked::Create(creating),
                    ..
                }) => Some(creating),
                Some(_) | None => None,
            };
            let Some((id, inbound, tunnel)) = found else {
                if let Some(creating) = creating {
                    creating.deleted_unknown(spi);
                }
                continue;
            };
            self.children.remove(&id);
            if let Some(creating) = creating {
                creating.peer_deleted(id, |child| self.children.contains_key(&child));
            }
            self.tasks.retain(|task| *task != Task::Delete(id));
            // Of crossing Deletes neither is answered with the other half (RFC 7296 §1.4.1).
            let crossing = self.is_asking(|asked| matches!(asked, Asked::Delete(it) if *it == id));
            if !crossing {
                ours.push(inbound.0.get());
            }
            ctx.event(self.name_for(tunnel), IkeEvent::ChildDeletedByPeer(id));
        }
        let mut answer = about_paths;
        if !ours.is_empty() {
            answer.push(Payload::Delete(Delete::Esp(ours)));
        }
        self.respond(ctx, reply_to, &answer)
    }
}

fn esp_spis(delete: &Delete) -> impl Iterator<Item = u32> {
    let spis: &[u32] = match delete {
        Delete::Esp(spis) => spis,
        Delete::IkeSa | Delete::Ah(_) => &[],
    };
    spis.iter().copied()
}

/// An IKE SA that is about to be deleted, by us or by the peer.
pub(super) struct Closing {
    pub(super) name: Name,
    pub(super) session: Session,
    step: Step,
    /// What the tunnel hears at the end, unless it has been told.
    tell: Option<CloseReason>,
}

/// What it waits for.
enum Step {
    /// The answer to an earlier request: the window is 1, so our Delete must wait (RFC 7296 §2.3),
    /// but only until then.
    Earlier { earlier: Earlier, until: Timestamp },
    /// The answer to our Delete.
    Delete(InFlight),
    /// The peer's Delete of what it has rekeyed (RFC 7296 §2.8), but only until then.
    PeerDeletes(Timestamp),
}

/// A request that was in flight when the IKE SA was closed.
pub(super) struct Earlier {
    pub(super) in_flight: InFlight,
    /// If it was to rekey the IKE SA, there may be a successor to delete.
    pub(super) rekeying: Option<Box<IkeRekeying>>,
}

impl From<InFlight> for Earlier {
    fn from(in_flight: InFlight) -> Self {
        Self {
            in_flight,
            rekeying: None,
        }
    }
}

impl Closing {
    /// Deletes the IKE SA at the peer, after the request that is in flight.
    pub(super) fn start(
        ctx: &mut Context<'_>,
        name: Name,
        session: Session,
        earlier: Option<Earlier>,
        tell: Option<CloseReason>,
    ) -> Next {
        match earlier {
            Some(earlier) => {
                let until = ctx.now + ctx.limits.farewell_patience;
                let step = Step::Earlier { earlier, until };
                Self::wait(name, session, step, tell)
            }
            None => Self::send_delete(ctx, name, session, tell),
        }
    }

    /// The Delete is in flight already and the tunnel knows.
    pub(super) fn told(name: Name, session: Session, in_flight: InFlight) -> Next {
        Self::wait(name, session, Step::Delete(in_flight), None)
    }

    /// Deletes an IKE SA that a rekey left over; no tunnel knows it.
    pub(super) fn unnamed(ctx: &mut Context<'_>, name: Name, session: Session) -> Next {
        Self::send_delete(ctx, name, session, None)
    }

    /// Leaves an IKE SA that a rekey of the peer's left over for the peer to delete. It may repeat
    /// its request for as long as any IKE SA lingers.
    pub(super) fn replaced(ctx: &Context<'_>, name: Name, session: Session) -> Next {
        let step = Step::PeerDeletes(ctx.now + ctx.limits.linger);
        Self::wait(name, session, step, None)
    }

    fn wait(name: Name, session: Session, step: Step, tell: Option<CloseReason>) -> Next {
        Some(IkeSa::Closing(Box::new(Self {
            name,
            session,
            step,
            tell,
        })))
    }

    fn send_delete(
        ctx: &mut Context<'_>,
        name: Name,
        mut session: Session,
        tell: Option<CloseReason>,
    ) -> Next {
        let payloads = [Payload::Delete(Delete::IkeSa)];
        let schedule = ctx.limits.farewell;
        match session.request(ctx, ExchangeType::Informational, &payloads, schedule) {
            Ok(in_flight) => Self::wait(name, session, Step::Delete(in_flight), tell),
            Err(_) => {
                tell_tunnel(ctx, name, tell);
                None
            }
        }
    }

    /// Whether the tunnel still waits for the end.
    pub(super) fn is_untold(&self) -> bool {
        self.tell.is_some()
    }

    /// Whether only the peer has something left to do.
    pub(super) fn is_replaced(&self) -> bool {
        matches!(self.step, Step::PeerDeletes(_))
    }

    pub(super) fn next_timeout(&self) -> Timestamp {
        match &self.step {
            Step::Earlier { earlier, until } => earlier.in_flight.due().min(*until),
            Step::Delete(in_flight) => in_flight.due(),
            Step::PeerDeletes(until) => *until,
        }
    }

    pub(super) fn handle_timeout(mut self, ctx: &mut Context<'_>) -> Next {
        let path = &self.session.path;
        let goes_on = match &mut self.step {
            Step::Earlier { earlier, until } => {
                ctx.now < *until && earlier.in_flight.poll(ctx, path)
            }
            Step::Delete(in_flight) => in_flight.poll(ctx, path),
            Step::PeerDeletes(until) if ctx.now < *until => true,
            // The peer has forgotten to.
            Step::PeerDeletes(_) => {
                return Self::send_delete(ctx, self.name, self.session, self.tell);
            }
        };
        if goes_on {
            return self.stay();
        }
        self.over(ctx, None);
        None
    }

    /// Tells the tunnel, and cleans up what an unfinished rekey made.
    fn over(self, ctx: &mut Context<'_>, response: Option<&Payloads>) -> Session {
        tell_tunnel(ctx, self.name, self.tell);
        Self::abandon(ctx, self.name, &self.session, self.step, response);
        self.session
    }

    fn abandon(
        ctx: &mut Context<'_>,
        name: Name,
        session: &Session,
        step: Step,
        response: Option<&Payloads>,
    ) {
        match step {
            Step::Earlier { earlier, .. } => {
                if let Some(rekeying) = earlier.rekeying {
                    rekeying.abandon(ctx, name, session, response);
                }
            }
            Step::Delete(_) | Step::PeerDeletes(_) => {}
        }
    }

    pub(super) fn handle_message(
        mut self,
        ctx: &mut Context<'_>,
        message: &Message,
        datagram: &Datagram,
    ) -> Next {
        let in_flight = match &self.step {
            Step::Earlier { earlier, .. } => Some(&earlier.in_flight),
            Step::Delete(in_flight) => Some(in_flight),
            Step::PeerDeletes(_) => None,
        };
        match self.session.receive(ctx, message, datagram, in_flight) {
            Received::Nothing => self.stay(),
            Received::Response(payloads) => match self.step {
                Step::Earlier { .. } => {
                    let response = payloads.as_ref().ok();
                    Self::abandon(ctx, self.name, &self.session, self.step, response);
                    Self::send_delete(ctx, self.name, self.session, self.tell)
                }
                Step::Delete(_) | Step::PeerDeletes(_) => {
                    tell_tunnel(ctx, self.name, self.tell);
                    None
                }
            },
            Received::Request(request) => self.answer(ctx, request),
        }
    }

    /// While we close, nothing new is agreed to.
    fn answer(mut self, ctx: &mut Context<'_>, request: Request) -> Next {
        let Request {
            exchange,
            payloads,
            reply_to,
        } = request;
        let (answer, is_over) = match (exchange, payloads) {
            (_, Err(fault)) => (vec![fault.notify()], false),
            // Both ends delete it: this answer is all that is left to say.
            (ExchangeType::Informational, Ok(payloads)) => {
                (Vec::new(), payloads.deletes.contains(&Delete::IkeSa))
            }
            (ExchangeType::CreateChildSa, Ok(_)) => (only(NotifyType::TEMPORARY_FAILURE), false),
            (
                ExchangeType::IkeSaInit
                | ExchangeType::IkeIntermediate
                | ExchangeType::IkeAuth
                | ExchangeType::Other(_),
                Ok(_),
            ) => (only(NotifyType::INVALID_SYNTAX), false),
        };
        let sent = self.session.respond(ctx, reply_to, &answer);
        match (sent, is_over) {
            (Ok(()), false) => self.stay(),
            (Ok(()), true) => {
                let session = self.over(ctx, None);
                Lingering::start(ctx, session)
            }
            (Err(_), _) => {
                self.over(ctx, None);
                None
            }
        }
    }

    fn stay(self) -> Next {
        Some(IkeSa::Closing(Box::new(self)))
    }
}

fn tell_tunnel(ctx: &mut Context<'_>, name: Name, tell: Option<CloseReason>) {
    if let Some(reason) = tell {
        ctx.event(name, IkeEvent::Closed(reason));
    }
}

/// An IKE SA that is over. Its last response may be lost, and the peer then asks again.
#[derive(Debug)]
pub(super) struct Lingering {
    pub(super) session: Session,
    until: Timestamp,
}

impl Lingering {
    pub(super) fn start(ctx: &Context<'_>, session: Session) -> Next {
        Some(IkeSa::Lingering(Box::new(Self {
            session,
            until: ctx.now + ctx.limits.linger,
        })))
    }

    pub(super) fn next_timeout(&self) -> Timestamp {
        self.until
    }

    pub(super) fn handle_timeout(self, ctx: &Context<'_>) -> Next {
        (ctx.now < self.until).then(|| IkeSa::Lingering(Box::new(self)))
    }

    /// The session itself repeats its last response; nothing else is answered.
    pub(super) fn handle_message(
        mut self,
        ctx: &mut Context<'_>,
        message: &Message,
        datagram: &Datagram,
    ) -> Next {
        let _ = self.session.receive(ctx, message, datagram, None);
        Some(IkeSa::Lingering(Box::new(self)))
    }
}
