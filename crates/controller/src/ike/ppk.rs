//! Post-quantum pre-shared keys (RFC 8784): mixed into SK_d, SK_pi and SK_pr before AUTH, so that
//! whoever recorded the exchange and breaks its key exchange later still has nothing.

use epochgate_ike_wire::{Authentication, NotifyType, Payload};

use crate::config::TunnelConfig;
use crate::pki::Ppk;

use super::context::Context;
use super::init::Handshake;
use super::keys::{IkeKeys, Part};
use super::payloads::{Payloads, notify, notify_with};
use super::proof::{self, Doubt};

/// PPK_ID_FIXED (RFC 8784 §5.1): the identifier names one key.
const FIXED: u8 = 2;

/// Says in IKE_SA_INIT that we could use one.
pub(super) fn offer() -> Payload {
    notify(NotifyType::USE_PPK)
}

/// The keys of an initiator that were there before a PPK was mixed in, for a responder that does
/// not have it.
#[derive(Debug)]
pub(super) struct Without(IkeKeys);

/// As initiator: mixes the tunnel's PPK in. Nothing where none is configured, or the responder
/// speaks of none.
///
/// # Errors
/// The PPK is required, and the responder speaks of none.
pub(super) fn begin(
    ctx: &Context<'_>,
    config: &TunnelConfig,
    handshake: &mut Handshake,
) -> Result<Option<Without>, String> {
    let Some(ppk) = &config.auth.ppk else {
        return Ok(None);
    };
    if handshake.abilities.ppk {
        return Ok(Some(Without(mix(ctx, ppk, handshake))));
    }
    if ppk.required {
        return Err(format!(
            "tunnel {} requires a post-quantum pre-shared key, but the peer uses none: configure it \
             there",
            config.name
        ));
    }
    Ok(None)
}

/// As initiator: the notifies of IKE_AUTH, with AUTH for a responder that has not got the PPK.
///
/// # Errors
/// That AUTH could not be made.
pub(super) fn present(
    ctx: &Context<'_>,
    config: &TunnelConfig,
    handshake: &mut Handshake,
    without: &Without,
    id_body: &[u8],
) -> Result<Vec<Payload>, String> {
    let Some(ppk) = &config.auth.ppk else {
        return Ok(Vec::new());
    };
    let data = [&[FIXED], ppk.id.as_slice()].concat();
    let mut payloads = vec![notify_with(NotifyType::PPK_IDENTITY, data)];
    if !ppk.required {
        let mixed = std::mem::replace(&mut handshake.keys, without.0.clone());
        let plain = proof::prove(ctx, config, handshake, Part::Initiator, id_body);
        handshake.keys = mixed;
        if let Payload::Authentication(auth) = plain?.auth {
            payloads.push(notify_with(NotifyType::NO_PPK_AUTH, auth.data));
        }
    }
    Ok(payloads)
}

/// As initiator: what the responder made of it. Without its PPK_IDENTITY the keys are as before.
///
/// # Errors
/// The PPK is required, and the responder has not used it.
pub(super) fn conclude(
    config: &TunnelConfig,
    handshake: &mut Handshake,
    without: Option<Without>,
    payloads: &Payloads,
) -> Result<(), String> {
    let (Some(ppk), Some(without)) = (&config.auth.ppk, without) else {
        return Ok(());
    };
    if payloads.notify(NotifyType::PPK_IDENTITY).is_some() {
        return Ok(());
    }
    if ppk.required {
        return Err(format!(
            "the peer has not got the post-quantum pre-shared key of tunnel {}: check ppk on both \
             ends",
            config.name
        ));
    }
    handshake.keys = without.0;
    Ok(())
}

/// As responder: judges the initiator for one tunnel, with or without its PPK. The handshake is
/// left as AUTH was made; true: with the PPK, which we then confirm.
pub(super) fn judge(
    ctx: &Context<'_>,
    config: &TunnelConfig,
    handshake: &mut Handshake,
    id_body: &[u8],
    payloads: &Payloads,
) -> Result<bool, Doubt> {
    let auth = payloads.authentication.as_ref();
    let judge = |handshake: &Handshake, auth: Option<&Authentication>| {
        proof::judge(
            ctx,
            config,
            handshake,
            Part::Initiator,
            id_body,
            payloads,
            auth,
        )
    };
    let shown = payloads.notify(NotifyType::PPK_IDENTITY);
    let is_required = config.auth.ppk.as_ref().is_some_and(|ppk| ppk.required);
    let (Some(shown), true) = (shown, handshake.abilities.ppk) else {
        if is_required {
            return Err(Doubt::Ppk);
        }
        return judge(handshake, auth).map(|()| false);
    };
    let ours = config.auth.ppk.as_ref();
    let named = ours.filter(|ppk| shown.data.split_first() == Some((&FIXED, ppk.id.as_slice())));
    if let Some(ppk) = named {
        let plain = mix(ctx, ppk, handshake);
        let verdict = judge(handshake, auth);
        if verdict.is_err() {
            handshake.keys = plain;
        }
        return verdict.map(|()| true);
    }
    // We have not got that key: there may be an AUTH for us (RFC 8784 §3, step 2).
    let plain = payloads.notify(NotifyType::NO_PPK_AUTH);
    match (auth, plain) {
        (Some(auth), Some(plain)) if !is_required => {
            let auth = Authentication {
                method: auth.method,
                data: plain.data.clone(),
            };
            judge(handshake, Some(&auth)).map(|()| false)
        }
        _ => Err(Doubt::Ppk),
    }
}

/// Confirms that we have used the PPK.
pub(super) fn confirmation() -> Payload {
    notify(NotifyType::PPK_IDENTITY)
}

/// Mixes a PPK into the handshake's keys; gives them as they were.
fn mix(ctx: &Context<'_>, ppk: &Ppk, handshake: &mut Handshake) -> IkeKeys {
    let mixed = handshake
        .keys
        .with_ppk(ctx.crypto, handshake.algorithms.prf, &ppk.key);
    std::mem::replace(&mut handshake.keys, mixed)
}
