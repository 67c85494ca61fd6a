//! SAs that get other outer addresses or ports, keys and replay state kept.
//!
//! The kernel finds an SA by destination and SPI. XFRM_MSG_UPDSA changes the ports of UDP
//! encapsulation in place and no address (`xfrm_state_update`); everything else is a new SA made of
//! what XFRM_MSG_GETSA tells of the old one. XFRM_MSG_MIGRATE would do it in one call, but rewrites
//! the addresses in policies that it finds by their templates' addresses, and ours have wildcards.

use epochgate_controller::io::{SaDirection, SaMove, XfrmError, XfrmReply};
use epochgate_xfrm::{Encap, Key, Op, Protection, ReplayState, Sa, SaEntry};

use super::{Kernel, Outcome, done, refusal, spec};

/// Sequence numbers that an outbound SA leaves out when it takes over from one that goes on sending
/// until the policies are switched: more than a fast link sends in that time.
const SEQUENCE_MARGIN: u64 = 1 << 20;

impl Kernel {
    pub(super) async fn move_sa(&mut self, change: &SaMove) -> Outcome {
        let from = spec::sa_id(change.from);
        let entry = self.requests.sa(from).await.map_err(|e| refusal(&e))?;
        let packets = entry.usage.packets;
        let encap = change
            .encapsulation
            .map(|ports| Encap::udp(ports.source_port, ports.destination_port));
        let stays = change.from == change.to;
        let ports_only = stays
            && entry.sa.source == change.source
            && entry.sa.encap.is_some() == encap.is_some();
        let sa = moved(entry, change, encap)?;
        if ports_only {
            done(self.requests.update_sa(&sa).await)?;
            return Ok(XfrmReply::Packets(packets));
        }
        let awaited = matches!(
            change.direction,
            SaDirection::Inbound { report_first: true }
        );
        if awaited {
            self.await_first(change.to)?;
        }
        if stays {
            self.replace(change, &sa).await?;
        } else {
            done(self.requests.add_sa(&sa).await)?;
        }
        Ok(XfrmReply::Packets(0))
    }

    /// Deletes and adds in one batch: no other request comes between them.
    async fn replace(&mut self, change: &SaMove, sa: &Sa) -> Result<(), XfrmError> {
        let ops = [Op::DeleteSa(spec::sa_id(change.from).into()), Op::AddSa(sa)];
        let mut outcomes = self.requests.batch(&ops).await.into_iter();
        if let Some(Ok(())) = outcomes.next() {
            *self.own.removed_sas.entry(change.from).or_default() += 1;
        }
        match outcomes.next() {
            Some(Ok(())) => Ok(()),
            // A packet came between them, and the larval SA of its ACQUIRE took the SPI:
            // XFRM_MSG_UPDSA completes that one.
            Some(Err(error)) if error.is_exists() => {
                done(self.requests.update_sa(sa).await).map(|_| ())
            }
            Some(Err(error)) => Err(refusal(&error)),
            None => Err(XfrmError::Other("the kernel did not answer".into())),
        }
    }
}

/// The SA that takes over.
fn moved(entry: SaEntry, change: &SaMove, encap: Option<Encap>) -> Result<Sa, XfrmError> {
    let SaEntry { mut sa, replay, .. } = entry;
    if is_redacted(&sa.protection) {
        return Err(XfrmError::Other(
            "the kernel does not tell the keys of an SA (lockdown), so that it can't be moved"
                .into(),
        ));
    }
    sa.source = change.source;
    sa.destination = change.to.destination;
    sa.encap = encap;
    // It names the old addresses where the kernel filled it in.
    sa.selector = None;
    let mut replay = replay.unwrap_or_default();
    let is_outbound = matches!(change.direction, SaDirection::Outbound);
    if is_outbound && change.from != change.to {
        advance(&mut replay, sa.replay_window.extended)?;
    }
    sa.initial_replay = Some(replay);
    let thresholds = spec::event_thresholds(change.direction);
    sa.replay_threshold = thresholds.replay;
    sa.timer_threshold = thresholds.timer;
    Ok(sa)
}

/// Near the end of 32-bit sequence numbers there is no room left to leave any out: the caller
/// negotiates a new SA then.
fn advance(replay: &mut ReplayState, extended: bool) -> Result<(), XfrmError> {
    let last = if extended {
        u64::MAX
    } else {
        u64::from(u32::MAX)
    };
    replay.outbound = replay
        .outbound
        .checked_add(SEQUENCE_MARGIN)
        .filter(|outbound| *outbound < last)
        .ok_or_else(|| XfrmError::Other("its sequence numbers are nearly used up".into()))?;
    Ok(())
}

/// Whether the kernel shows zeros instead of keys (`xfrm_redact`, LOCKDOWN_XFRM_SECRET).
fn is_redacted(protection: &Protection) -> bool {
    let zero = |key: &Key| key.expose().iter().all(|octet| *octet == 0);
    match protection {
        Protection::Aead(aead) => zero(&aead.key),
        Protection::Encryption { cipher, integrity } => {
            zero(&cipher.key) || integrity.as_ref().is_some_and(|it| zero(&it.key))
        }
        Protection::Integrity(integrity) => zero(&integrity.key),
        // We make no such SAs.
        Protection::Larval | Protection::Compression(_) => true,
    }
}
