//! How long an IKE SA lives before it is rekeyed, and how often that is tried (RFC 7296 §2.8).

use std::time::Duration;

use crate::Timestamp;
use crate::config::{Role, TunnelConfig};

use super::context::Context;

/// Age in percent of the lifetime from which a client rekeys. A server's begins above 100: where
/// both ends agree on a lifetime, the client is first and they seldom cross.
const CLIENT_PERCENT: u32 = 80;

/// As [`CLIENT_PERCENT`], of a server.
const SERVER_PERCENT: u32 = 105;

/// Thousandths of the lifetime that the jitter spreads rekeys over, so that tunnels which started
/// together do not rekey together.
const JITTER_THOUSANDTHS: u32 = 200;

/// Age in percent at which an IKE SA that could not be rekeyed ends.
const EXPIRY_PERCENT: u32 = 150;

/// Shortest wait after TEMPORARY_FAILURE; the longest is three times that (RFC 7296 §2.25).
const RETRY_MIN: Duration = Duration::from_secs(1);

/// TEMPORARY_FAILUREs in a row after which a rekey counts as refused.
const RETRIES_MAX: u8 = 10;

/// From a rekey that was put off to the end of the IKE SA at least: an exchange whose request is sent
/// three times. The end is put off by [`RETRIES_MAX`] waits and exchanges at most.
const RETRY_PATIENCE: Duration = Duration::from_secs(5);

/// The timers of one IKE SA.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetime {
    /// When it is rekeyed, or that is tried again; not before its end once it was refused.
    rekey_at: Timestamp,
    expires: Timestamp,
    retries: u8,
    /// The peer ends it then unless there is a new IKE SA; rekeys do not change that (RFC 4478 §3).
    authenticated_until: Option<Timestamp>,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Rekey,
    Expiry,
}

impl Lifetime {
    /// Of an IKE SA that begins now.
    pub(super) fn begin(ctx: &Context<'_>, config: &TunnelConfig) -> Self {
        let lifetime = config.ike_sa.lifetime;
        let first = match config.role {
            Role::Client => CLIENT_PERCENT,
            Role::Server => SERVER_PERCENT,
        };
        let jitter = below(ctx, JITTER_THOUSANDTHS);
        Self {
            rekey_at: ctx.now + lifetime.saturating_mul(first * 10 + jitter) / 1000,
            expires: ctx.now + lifetime.saturating_mul(EXPIRY_PERCENT) / 100,
            retries: 0,
            authenticated_until: None,
        }
    }

    /// Of the successor that an IKE SA has from now on.
    pub(super) fn succeed(self, ctx: &Context<'_>, config: &TunnelConfig) -> Self {
        Self {
            authenticated_until: self.authenticated_until,
            ..Self::begin(ctx, config)
        }
    }

    /// The peer says for how long it takes us for authenticated.
    pub(super) fn limit(&mut self, until: Timestamp) {
        self.authenticated_until = Some(until);
    }

    pub(super) fn authenticated_until(&self) -> Option<Timestamp> {
        self.authenticated_until
    }

    /// When it is to be rekeyed, unless the peer has refused that.
    pub(super) fn rekey_at(&self) -> Option<Timestamp> {
        (self.rekey_at < self.expires).then_some(self.rekey_at)
    }

    pub(super) fn next_timeout(&self) -> Timestamp {
        self.rekey_at.min(self.expires)
    }

    /// What is due now; each rekey is due once.
    pub(super) fn poll(&mut self, now: Timestamp) -> Due {
        if self.expires <= now {
            Due::Expiry
        } else if self.rekey_at <= now {
            self.rekey_at = self.expires;
            Due::Rekey
        } else {
            Due::Nothing
        }
    }

    /// The peer had no time: again a little later, unless that was so too often. Random, because
    /// both ends may be refusing each other (RFC 7296 §2.25).
    pub(super) fn postpone(&mut self, ctx: &Context<'_>) -> bool {
        if self.retries == RETRIES_MAX {
            return false;
        }
        self.retries += 1;
        let thousandths = 1000 + below(ctx, 2000);
        self.rekey_at = ctx.now + RETRY_MIN.saturating_mul(thousandths) / 1000;
        // Who slept through most of its lifetime has not had the time to be refused in earnest.
        self.expires = self.expires.max(self.rekey_at + RETRY_PATIENCE);
        true
    }
}

/// A random number below the bound; zero where the provider fails, which costs only the spread.
fn below(ctx: &Context<'_>, bound: u32) -> u32 {
    let mut octets = [0; 4];
    match ctx.crypto.random(&mut octets) {
        Ok(()) => u32::from_be_bytes(octets) % bound,
        Err(_) => 0,
    }
}
