//! An IKE SA through its life: a state owns what it needs, and each message, timer or order
//! consumes it and gives the next (RFC 7296 §1).

use std::net::{IpAddr, SocketAddr};

use epochgate_ike_wire::{ExchangeType, IkeSpi, Message};

use crate::Timestamp;
use crate::io::Datagram;

use super::auth::Authenticating;
use super::context::{Context, Name};
use super::established::Established;
use super::informational::{Closing, Lingering};
use super::init::Initiating;
use super::intermediate::Intermediate;
use super::respond::HalfOpen;
use super::{ChildId, Path, Peer, TunnelId};

/// The states.
pub(super) enum IkeSa {
    /// Initiator, IKE_SA_INIT sent.
    Initiating(Box<Initiating>),
    /// Responder, IKE_SA_INIT answered.
    HalfOpen(Box<HalfOpen>),
    /// Initiator, IKE_INTERMEDIATE sent.
    Intermediate(Box<Intermediate>),
    /// Initiator, IKE_AUTH sent.
    Authenticating(Box<Authenticating>),
    /// Both ends are authenticated.
    Established(Box<Established>),
    /// We are deleting it.
    Closing(Box<Closing>),
    /// Over; only repeats its last response.
    Lingering(Box<Lingering>),
}

/// The state after a transition; `None`: the IKE SA is gone.
pub(super) type Next = Option<IkeSa>;

/// An order of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Rekey this Child SA.
    Rekey(ChildId),
    /// Rekey the IKE SA itself.
    RekeyIke,
    /// Make a Child SA for this tunnel.
    New(TunnelId),
    /// This tunnel uses the IKE SA no longer: end what it has there.
    Leave(TunnelId),
    /// Delete this Child SA.
    Delete(ChildId),
    /// See whether the peer lives.
    CheckLiveness,
    /// The Child SA is in the kernel, or could not be put there.
    Ready {
        /// Which.
        child: ChildId,
        /// Whether it is there.
        installed: bool,
    },
    /// The peer's ESP comes from there (XFRM_MSG_MAPPING).
    Mapping(SocketAddr),
    /// Send from this address from now on (MOBIKE).
    Move(IpAddr),
    /// The addresses of this host changed.
    ListAddresses,
    /// Delete the IKE SA.
    Close,
}

impl IkeSa {
    /// What names it in messages that come in: the SPI that we chose.
    pub(super) fn spi(&self) -> IkeSpi {
        match self {
            Self::Initiating(it) => it.whereabouts().0,
            Self::HalfOpen(it) => it.spi(),
            Self::Intermediate(it) => it.session.our_spi(),
            Self::Authenticating(it) => it.session.our_spi(),
            Self::Established(it) => it.session.our_spi(),
            Self::Closing(it) => it.session.our_spi(),
            Self::Lingering(it) => it.session.our_spi(),
        }
    }

    /// Its names, while tunnels can have a use for it.
    pub(super) fn name(&self) -> Option<Name> {
        match self {
            Self::Initiating(it) => Some(it.name),
            Self::Intermediate(it) => Some(it.name),
            Self::Authenticating(it) => Some(it.name),
            Self::Established(it) => Some(it.name),
            Self::HalfOpen(_) | Self::Closing(_) | Self::Lingering(_) => None,
        }
    }

    /// Its data, while both ends are authenticated and nobody is deleting it.
    pub(super) fn established(&self) -> Option<&Established> {
        match self {
            Self::Established(it) => Some(it),
            Self::Initiating(_)
            | Self::HalfOpen(_)
            | Self::Intermediate(_)
            | Self::Authenticating(_)
            | Self::Closing(_)
            | Self::Lingering(_) => None,
        }
    }

    /// Who the authenticated peer is.
    pub(super) fn peer(&self) -> Option<Peer> {
        self.established().map(|it| it.peer())
    }

    /// For how long the peer takes us for authenticated, if it has said so.
    pub(super) fn authenticated_until(&self) -> Option<Timestamp> {
        self.established()?.lifetime.authenticated_until()
    }

    /// Where its messages and its ESP go, once it is established.
    pub(super) fn path(&self) -> Option<Path> {
        self.established().map(|it| it.session.path)
    }

    /// Whether this end decides which addresses it uses (RFC 4555 §3.1).
    pub(super) fn may_move(&self) -> bool {
        let mobility = self
            .established()
            .and_then(|it| it.session.mobility.as_ref());
        mobility.is_some_and(|mobility| mobility.decides)
    }

    /// Whether it only answers what is still to come, and nobody would miss it much.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Lingering(_) => true,
            Self::Closing(it) => it.is_replaced(),
            Self::Initiating(_)
            | Self::HalfOpen(_)
            | Self::Intermediate(_)
            | Self::Authenticating(_)
            | Self::Established(_) => false,
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        match self {
            Self::Initiating(it) => Some(it.next_timeout()),
            Self::HalfOpen(it) => Some(it.next_timeout()),
            Self::Intermediate(it) => Some(it.next_timeout()),
            Self::Authenticating(it) => Some(it.next_timeout()),
            Self::Established(it) => it.next_timeout(),
            Self::Closing(it) => Some(it.next_timeout()),
            Self::Lingering(it) => Some(it.next_timeout()),
        }
    }

    pub(super) fn handle_timeout(self, ctx: &mut Context<'_>) -> Next {
        match self {
            Self::Initiating(it) => it.handle_timeout(ctx),
            Self::HalfOpen(it) => it.handle_timeout(ctx),
            Self::Intermediate(it) => it.handle_timeout(ctx),
            Self::Authenticating(it) => it.handle_timeout(ctx),
            Self::Established(it) => it.handle_timeout(ctx),
            Self::Closing(it) => it.handle_timeout(ctx),
            Self::Lingering(it) => it.handle_timeout(ctx),
        }
    }

    /// A message with our SPI, other than an IKE_SA_INIT request.
    pub(super) fn handle_message(
        self,
        ctx: &mut Context<'_>,
        message: Message,
        datagram: &Datagram,
    ) -> Next {
        let is_init = message.header.exchange == ExchangeType::IkeSaInit;
        match self {
            Self::Initiating(it) if is_init => it.handle_response(ctx, message, datagram),
            // An IKE_SA_INIT response that came late, or a protected message that came early.
            Self::Initiating(_)
            | Self::HalfOpen(_)
            | Self::Intermediate(_)
            | Self::Authenticating(_)
            | Self::Established(_)
            | Self::Closing(_)
            | Self::Lingering(_)
                if is_init =>
            {
                ctx.counters.outside_window += 1;
                Some(self)
            }
            Self::Initiating(_) => {
                ctx.counters.outside_window += 1;
                Some(self)
            }
            Self::HalfOpen(it) => it.handle_message(ctx, &message, datagram),
            Self::Intermediate(it) => it.handle_message(ctx, &message, datagram),
            Self::Authenticating(it) => it.handle_message(ctx, &message, datagram),
            Self::Established(it) => it.handle_message(ctx, &message, datagram),
            Self::Closing(it) => it.handle_message(ctx, &message, datagram),
            Self::Lingering(it) => it.handle_message(ctx, &message, datagram),
        }
    }

    /// An order of the tunnel. What an IKE SA cannot do before it is established is not done.
    pub(super) fn obey(self, ctx: &mut Context<'_>, order: Order) -> Next {
        match (self, order) {
            (Self::Initiating(it), Order::Close) => it.close(ctx),
            (Self::Intermediate(it), Order::Close) => it.close(ctx),
            (Self::Authenticating(it), Order::Close) => it.close(ctx),
            (Self::Established(it), order) => it.obey(ctx, order),
            (
                sa @ (Self::Initiating(_)
                | Self::HalfOpen(_)
                | Self::Intermediate(_)
                | Self::Authenticating(_)
                | Self::Closing(_)
                | Self::Lingering(_)),
                Order::Rekey(_)
                | Order::RekeyIke
                | Order::New(_)
                | Order::Leave(_)
                | Order::Delete(_)
                | Order::CheckLiveness
                | Order::Ready { .. }
                | Order::Mapping(_)
                | Order::Move(_)
                | Order::ListAddresses
                | Order::Close,
            ) => Some(sa),
        }
    }
}
