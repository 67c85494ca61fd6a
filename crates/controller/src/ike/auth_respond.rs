//! IKE_AUTH as responder (RFC 7296 §1.2, §2.15, §2.21.2): who the peer is, whether it may, and the
//! first Child SA. The answer waits until that Child SA is in the kernel.

use std::cmp::Reverse;
use std::sync::Arc;

use epochgate_ike_wire::{Identification, NotifyType, Payload};

use crate::config::{PostQuantum, RemoteAuth, TunnelConfig};
use crate::{Secret, Timestamp};

use super::announce;
use super::auth::malformed;
use super::auth_respond_eap;
use super::child::{self, Circumstances, Refusal, child_error};
use super::configuration;
use super::context::{Context, Name};
use super::established::{ChildSeed, Established, KeptAnswer};
use super::identity;
use super::informational::Lingering;
use super::init::{Handshake, only};
use super::keys::Part;
use super::mobike;
use super::payloads::{Fault, Payloads, notify};
use super::ppk;
use super::proof;
use super::proposal::{self, ChildKeyExchange};
use super::respond::HalfOpen;
use super::sa::Next;
use super::session::{ReplyTo, Request, Session};
use super::sharing::closeness;
use super::{CloseReason, IkeEvent, Peer, Refused, TunnelId};

/// Tunnels that one AUTH is judged for at most: each may cost a path of certificates.
const JUDGED_MAX: usize = 8;

/// Why a peer is refused.
enum Denial {
    /// No tunnel to tell: only the peer's address and a reason.
    Stranger(NotifyType, String),
    /// A tunnel is concerned.
    Tunnel(NotifyType, TunnelId, CloseReason),
    /// The message itself cannot be read.
    Fault(Fault),
}

/// A peer that proved its identity.
pub(super) struct Admitted {
    pub(super) tunnel: TunnelId,
    pub(super) config: Arc<TunnelConfig>,
    how: How,
}

/// How it did.
enum How {
    /// By its AUTH; true: with the tunnel's PPK.
    Proven(bool),
    /// Not yet: it has to, by EAP.
    Eap,
}

/// Answers the first IKE_AUTH request of a half-open IKE SA.
pub(super) fn answer(ctx: &mut Context<'_>, mut half_open: HalfOpen, request: Request) -> Next {
    let admitted = match request.payloads {
        Ok(payloads) => {
            let HalfOpen {
                session, handshake, ..
            } = &mut half_open;
            admit(ctx, session, handshake, &payloads).map(|who| (who, payloads))
        }
        Err(fault) => Err(Denial::Fault(fault)),
    };
    let id = half_open.id;
    match admitted {
        Ok((admitted, payloads)) => {
            let ppk = match admitted.how {
                How::Proven(ppk) => ppk,
                How::Eap => {
                    let reply_to = request.reply_to;
                    return auth_respond_eap::begin(ctx, half_open, admitted, payloads, reply_to);
                }
            };
            let Admitted { tunnel, config, .. } = admitted;
            let half = Half {
                name: Name { id, tunnel },
                session: half_open.session,
                handshake: half_open.handshake,
                config,
                since: half_open.since,
                ppk,
                msk: None,
            };
            half.establish(ctx, request.reply_to, &payloads)
        }
        Err(denial) => {
            let remote = half_open.session.path.remote;
            let answer = match denial {
                Denial::Stranger(kind, reason) => {
                    ctx.stranger(remote, reason);
                    only(kind)
                }
                Denial::Tunnel(kind, tunnel, reason) => {
                    // Whoever knows our identities can provoke this.
                    if ctx.strangers.take(ctx.now) {
                        ctx.event(Name { id, tunnel }, IkeEvent::Closed(reason));
                    }
                    only(kind)
                }
                Denial::Fault(fault) => {
                    ctx.stranger(remote, "IKE_AUTH refused: it is malformed".to_owned());
                    vec![fault.notify()]
                }
            };
            deny(ctx, half_open.session, request.reply_to, &answer)
        }
    }
}

/// The last answer of an IKE SA that does not come about. A peer that does not get it asks again:
/// it is kept for a while.
pub(super) fn deny(
    ctx: &mut Context<'_>,
    mut session: Session,
    reply_to: ReplyTo,
    answer: &[Payload],
) -> Next {
    match session.respond(ctx, reply_to, answer) {
        Ok(()) => Lingering::start(ctx, session),
        Err(_) => None,
    }
}

/// Finds the peer in the PAD and checks its AUTH.
fn admit(
    ctx: &Context<'_>,
    session: &Session,
    handshake: &mut Handshake,
    payloads: &Payloads,
) -> Result<Admitted, Denial> {
    let Some(id) = &payloads.id_initiator else {
        return Err(Denial::Fault(Fault::Syntax));
    };
    let (local, remote) = (session.path.local.ip(), session.path.remote.ip());
    let mut known: Vec<(TunnelId, &Arc<TunnelConfig>)> = ctx
        .pad
        .peers(local, remote, &id.identity)
        .filter(|(_, config)| {
            payloads
                .id_responder
                .as_ref()
                .is_none_or(|wanted| identity::is(&wanted.identity, &config.local.id))
        })
        .collect();
    let Some(&(first, config)) = known.first() else {
        return Err(Denial::Stranger(
            NotifyType::AUTHENTICATION_FAILED,
            stranger(id, payloads.id_responder.as_ref()),
        ));
    };
    if payloads.authentication.is_none() {
        let wants_eap = |config: &TunnelConfig| matches!(config.auth.remote, RemoteAuth::Eap(_));
        let asked = known.iter().filter(|(_, config)| wants_eap(config));
        if let Some(&(tunnel, config)) = asked.max_by_key(|(_, it)| closeness(it, payloads)) {
            check_algorithms(tunnel, config, handshake)?;
            return Ok(Admitted {
                tunnel,
                config: Arc::clone(config),
                how: How::Eap,
            });
        }
    }
    let id_body = id.to_wire_body();
    // Several tunnels to one peer: the one whose traffic the offer is about comes first, and the
    // first that believes the peer has it.
    known.sort_by_key(|(_, config)| Reverse(closeness(config, payloads)));
    let mut doubt = None;
    let believer = known
        .into_iter()
        .take(JUDGED_MAX)
        .find_map(|(tunnel, config)| {
            let mut keyed = handshake.clone();
            match ppk::judge(ctx, config, &mut keyed, &id_body, payloads) {
                Ok(ppk) => Some((tunnel, config, ppk, keyed)),
                Err(it) => {
                    doubt.get_or_insert(it);
                    None
                }
            }
        });
    let Some((tunnel, config, ppk, keyed)) = believer else {
        let who = id.identity.to_string();
        let reason = doubt.map(|doubt| doubt.explain(&who, config));
        return Err(Denial::Tunnel(
            NotifyType::AUTHENTICATION_FAILED,
            first,
            CloseReason::AuthenticationFailed(reason.unwrap_or_default()),
        ));
    };
    check_algorithms(tunnel, config, handshake)?;
    *handshake = keyed;
    Ok(Admitted {
        tunnel,
        config: Arc::clone(config),
        how: How::Proven(ppk),
    })
}

/// IKE_SA_INIT was answered before anybody knew whom for.
fn check_algorithms(
    tunnel: TunnelId,
    config: &TunnelConfig,
    handshake: &Handshake,
) -> Result<(), Denial> {
    let allowed = &config.ike;
    let proposal::IkeAlgorithms {
        cipher,
        prf,
        group,
        additional,
    } = handshake.algorithms;
    let fits = match allowed.post_quantum {
        PostQuantum::Off => additional.is_none(),
        PostQuantum::Prefer => true,
        PostQuantum::Require => additional.is_some(),
    };
    if !(allowed.ciphers.contains(&cipher)
        && allowed.prfs.contains(&prf)
        && allowed.groups.contains(&group)
        && fits)
    {
        return Err(Denial::Tunnel(
            NotifyType::NO_PROPOSAL_CHOSEN,
            tunnel,
            CloseReason::NoProposal,
        ));
    }
    Ok(())
}

fn stranger(id: &Identification, wanted: Option<&Identification>) -> String {
    match wanted {
        Some(wanted) => format!(
            "IKE_AUTH refused: no tunnel has remote id {} and local id {}",
            id.identity, wanted.identity
        ),
        None => format!("IKE_AUTH refused: no tunnel has remote id {}", id.identity),
    }
}

/// An authenticated IKE SA that is about to be answered.
pub(super) struct Half {
    pub(super) name: Name,
    pub(super) session: Session,
    pub(super) handshake: Handshake,
    pub(super) config: Arc<TunnelConfig>,
    pub(super) since: Timestamp,
    /// AUTH was made with the tunnel's PPK.
    pub(super) ppk: bool,
    /// EAP's key, which proves us too; who we are was said before.
    pub(super) msk: Option<Secret>,
}

impl Half {
    pub(super) fn establish(
        self,
        ctx: &mut Context<'_>,
        reply_to: ReplyTo,
        payloads: &Payloads,
    ) -> Next {
        let Self {
            name,
            session,
            handshake,
            config,
            since,
            ppk,
            msk,
        } = self;
        let announcement = announce::read(payloads);
        let peer = Peer {
            id: config.remote.id.clone(),
            epochgate: announcement.epochgate,
            ping_address: announcement.ping_address,
            nat: session.nat.found(),
            nat_asked: session.nat.asked,
            initial_contact: payloads.notify(NotifyType::INITIAL_CONTACT).is_some(),
            assigned: None,
        };
        let mut common = match our_proof(ctx, &config, &handshake, msk.as_ref()) {
            Ok(proof) => proof,
            Err(reason) => {
                ctx.event(name, IkeEvent::Closed(CloseReason::Failed(reason)));
                let answer = only(NotifyType::AUTHENTICATION_FAILED);
                return deny(ctx, session, reply_to, &answer);
            }
        };
        ctx.event(name, IkeEvent::Established(peer.clone()));
        if ppk {
            common.push(ppk::confirmation());
        }
        common.extend(announce::payloads(ctx, name.tunnel));
        let mut session = session;
        let local = session.path.local.ip();
        session.mobility = mobike::agreed(ctx, &config, payloads, local, false);
        if session.mobility.is_some() {
            common.extend(mobike::offer(ctx, &config, local));
        }

        let childless = is_childless(payloads);
        let agreed = match configuration::answer(&config, payloads) {
            Ok(reply) => {
                common.extend(reply);
                match childless {
                    true => Ok(None),
                    false => {
                        child::answer(ctx, &config, payloads, ChildKeyExchange::Never).map(Some)
                    }
                }
            }
            // That is about a Child SA, and none is asked for.
            Err(NotifyType::FAILED_CP_REQUIRED) if childless => Ok(None),
            Err(kind) => {
                if kind == NotifyType::INTERNAL_ADDRESS_FAILURE {
                    ctx.event(name, IkeEvent::AddressWanted);
                }
                Err(Refusal::Notify(kind))
            }
        };
        let seed = ChildSeed {
            prf: handshake.algorithms.prf,
            derive: handshake.keys.derive.clone(),
        };
        let mut established = Established::new(
            ctx,
            name,
            session,
            config,
            handshake.algorithms,
            seed,
            &peer,
            since,
        );
        match agreed {
            Ok(None) => established.respond(ctx, reply_to, &common),
            Ok(Some((agreed, proposal, selectors))) => {
                let id = ctx.next_child();
                let child = agreed.into_child(
                    ctx,
                    &established.seed,
                    Circumstances {
                        id,
                        path: established.session.path,
                        replaces: None,
                        ping_address: announcement.ping_address,
                        part: Part::Responder,
                        shared: None,
                        nonces: handshake.nonces(),
                    },
                );
                established.add_child(name.tunnel, &child);
                let mut refused = common.clone();
                refused.push(notify(NotifyType::TEMPORARY_FAILURE));
                let mut accepted = common;
                accepted.push(proposal);
                accepted.extend(selectors);
                established.keep_answer(KeptAnswer {
                    child: id,
                    reply_to,
                    accepted,
                    refused,
                });
                ctx.event(name, IkeEvent::Child(Box::new(child)));
                established.proceed(ctx)
            }
            // The IKE SA stands without a Child SA (RFC 7296 §2.21.2).
            Err(refusal) => {
                common.push(match refusal {
                    Refusal::Notify(kind) => {
                        let refused = Refused::Child(child_error(kind));
                        ctx.event(name, IkeEvent::OfferRefused(refused));
                        notify(kind)
                    }
                    Refusal::Syntax => {
                        let reason = malformed(&established.config, Fault::Syntax);
                        return established.fatal(
                            ctx,
                            reply_to,
                            Fault::Syntax,
                            CloseReason::Failed(reason),
                        );
                    }
                });
                established.respond(ctx, reply_to, &common)
            }
        }
    }
}

/// Whether the initiator wants an IKE SA alone: no Child SA payloads at all (RFC 6023 §3).
fn is_childless(payloads: &Payloads) -> bool {
    payloads.proposals.is_none()
        && payloads.selectors_initiator.is_none()
        && payloads.selectors_responder.is_none()
}

/// Our identity and what proves it.
fn our_proof(
    ctx: &Context<'_>,
    config: &TunnelConfig,
    handshake: &Handshake,
    msk: Option<&Secret>,
) -> Result<Vec<Payload>, String> {
    let id = identity::identification(&config.local.id);
    let (body, part) = (id.to_wire_body(), Part::Responder);
    if let Some(msk) = msk {
        return Ok(vec![proof::prove_by_key(ctx, handshake, part, &body, msk)]);
    }
    let proof = proof::prove(ctx, config, handshake, part, &body)?;
    let mut payloads = vec![Payload::IdResponder(id)];
    payloads.extend(proof.certificates);
    payloads.push(proof.auth);
    Ok(payloads)
}
