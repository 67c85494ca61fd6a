//! INFORMATIONAL (RFC 7296 §1.4, §2.4): Deletes, liveness checks, and the end of an IKE SA.

use epochgate_ike_wire::{Delete, ExchangeType, Message, NotifyType, Payload};

use crate::Timestamp;
use crate::io::Datagram;

use super::context::{Context, Name};
use super::established::{Asked, Established, Outstanding, Task};
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
            return self.finish(ctx, reply_to, &[], CloseReason::DeletedByPeer);
        }
        let mut ours = Vec::new();
        for spi in payloads.deletes.iter().flat_map(esp_spis) {
            let found = self
                .children
                .iter()
                .find(|(_, child)| child.outbound.0.get() == spi)
                .map(|(id, child)| (*id, child.inbound, child.tunnel));
            let Some((id, inbound, tunnel)) = found else {
                continue;
            };
            self.children.remove(&id);
            if let Some(Outstanding {
                asked: Asked::Create(creating),
                ..
            }) = &mut self.outstanding
            {
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
        let answer = if ours.is_empty() {
            Vec::new()
        } else {
            vec![Payload::Delete(Delete::Esp(ours))]
        };
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

/// Our Delete of the IKE SA is on its way.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) name: Name,
    pub(super) session: Session,
    in_flight: InFlight,
    step: Step,
    /// What the tunnel hears at the end, unless it has been told.
    tell: Option<CloseReason>,
}

/// What is in flight.
#[derive(Debug)]
enum Step {
    /// An earlier request: the window is 1, so the Delete must wait (RFC 7296 §2.3), but only
    /// until then.
    Earlier(Timestamp),
    /// The Delete.
    Delete,
}

impl Closing {
    /// Deletes the IKE SA at the peer, after the request that is in flight.
    pub(super) fn start(
        ctx: &mut Context<'_>,
        name: Name,
        session: Session,
        earlier: Option<InFlight>,
        tell: Option<CloseReason>,
    ) -> Next {
        match earlier {
            Some(in_flight) => Some(IkeSa::Closing(Box::new(Self {
                name,
                session,
                in_flight,
                step: Step::Earlier(ctx.now + ctx.limits.farewell_patience),
                tell,
            }))),
            None => Self::send_delete(ctx, name, session, tell),
        }
    }

    /// The Delete is in flight already and the tunnel knows.
    pub(super) fn told(name: Name, session: Session, in_flight: InFlight) -> Next {
        Some(IkeSa::Closing(Box::new(Self {
            name,
            session,
            in_flight,
            step: Step::Delete,
            tell: None,
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
            Ok(in_flight) => Some(IkeSa::Closing(Box::new(Self {
                name,
                session,
                in_flight,
                step: Step::Delete,
                tell,
            }))),
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

    pub(super) fn next_timeout(&self) -> Timestamp {
        match self.step {
            Step::Earlier(until) => self.in_flight.due().min(until),
            Step::Delete => self.in_flight.due(),
        }
    }

    pub(super) fn handle_timeout(mut self, ctx: &mut Context<'_>) -> Next {
        let patience_over = match self.step {
            Step::Earlier(until) => until <= ctx.now,
            Step::Delete => false,
        };
        if patience_over || !self.in_flight.poll(ctx, &self.session.path) {
            tell_tunnel(ctx, self.name, self.tell);
            return None;
        }
        self.stay()
    }

    pub(super) fn handle_message(
        mut self,
        ctx: &mut Context<'_>,
        message: &Message,
        datagram: &Datagram,
    ) -> Next {
        let received = self
            .session
            .receive(ctx, message, datagram, Some(&self.in_flight));
        match received {
            Received::Nothing => self.stay(),
            Received::Response(_) => match self.step {
                Step::Earlier(_) => Self::send_delete(ctx, self.name, self.session, self.tell),
                Step::Delete => {
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
            (ExchangeType::IkeSaInit | ExchangeType::IkeAuth | ExchangeType::Other(_), Ok(_)) => {
                (only(NotifyType::INVALID_SYNTAX), false)
            }
        };
        let sent = self.session.respond(ctx, reply_to, &answer);
        match (sent, is_over) {
            (Ok(()), false) => self.stay(),
            (Ok(()), true) => {
                tell_tunnel(ctx, self.name, self.tell);
                Lingering::start(ctx, self.session)
            }
            (Err(_), _) => {
                tell_tunnel(ctx, self.name, self.tell);
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
