//! Multicast messages to events. EXPIRE and MAPPING have attributes behind their structures.

use std::num::NonZeroU32;

use netlink_packet_xfrm::constants::{
    XFRM_MSG_ACQUIRE, XFRM_MSG_DELPOLICY, XFRM_MSG_DELSA, XFRM_MSG_EXPIRE, XFRM_MSG_FLUSHPOLICY,
    XFRM_MSG_FLUSHSA, XFRM_MSG_MAPPING, XFRM_MSG_MIGRATE, XFRM_MSG_NEWAE, XFRM_MSG_NEWPOLICY,
    XFRM_MSG_NEWSA, XFRM_MSG_POLEXPIRE, XFRM_MSG_REPORT, XFRM_MSG_UPDPOLICY, XFRM_MSG_UPDSA,
    XFRMA_ETIMER_THRESH, XFRMA_IF_ID, XFRMA_LTIME_VAL, XFRMA_MARK, XFRMA_POLICY,
    XFRMA_REPLAY_ESN_VAL, XFRMA_REPLAY_THRESH, XFRMA_REPLAY_VAL, XFRMA_SA,
};
use netlink_packet_xfrm::{
    AsyncEventId, Lifetime, UserAcquire, UserExpire, UserMapping, UserPolicyExpire, UserReport,
    XFRM_ASYNC_EVENT_ID_LEN, XFRM_LIFETIME_LEN, XFRM_USER_ACQUIRE_LEN, XFRM_USER_EXPIRE_LEN,
    XFRM_USER_MAPPING_LEN, XFRM_USER_POLICY_EXPIRE_LEN, XFRM_USER_POLICY_INFO_LEN,
    XFRM_USER_REPORT_LEN, XFRM_USER_SA_INFO_LEN,
};

use super::attribute::{XFRMA_SA_DIR, XFRMA_SA_PCPU};
use super::writer::Writer;
use super::{
    array, attribute, ip_address, optional_selector_from_wire, parsed, policy, sa,
    selector_from_wire, split, u32_from, usage_from_wire,
};
use crate::{
    Acquire, DecodeError, EventFlags, EventState, EventThresholds, Expire, Mapping, PolicyEntry,
    PolicyExpire, Protocol, Reqid, SaEntry, SaRef, XfrmEvent,
};

/// Where the policy stands in `xfrm_user_acquire`: behind id, source and selector.
const ACQUIRE_POLICY_OFFSET: usize = 24 + 16 + 56;

/// Reads a multicast message. It never fails: what can't be read is an event too.
pub(crate) fn event(message_type: u16, body: &[u8]) -> XfrmEvent {
    match known_event(message_type, body) {
        Ok(Some(event)) => event,
        Ok(None) => XfrmEvent::Unknown {
            message_type,
            length: body.len(),
        },
        Err(error) => XfrmEvent::Malformed {
            message_type,
            error,
        },
    }
}

fn known_event(message_type: u16, body: &[u8]) -> Result<Option<XfrmEvent>, DecodeError> {
    let event = match message_type {
        XFRM_MSG_NEWSA => XfrmEvent::NewSa(Box::new(sa::entry(body)?)),
        XFRM_MSG_UPDSA => XfrmEvent::UpdSa(Box::new(sa::entry(body)?)),
        XFRM_MSG_DELSA => deleted_sa(body)?,
        XFRM_MSG_FLUSHSA => {
            let [protocol] = array("xfrm_usersa_flush", body)?;
            XfrmEvent::FlushSa(Protocol::from_number(protocol))
        }
        XFRM_MSG_NEWPOLICY => XfrmEvent::NewPolicy(Box::new(policy::entry(body)?)),
        XFRM_MSG_UPDPOLICY => XfrmEvent::UpdPolicy(Box::new(policy::entry(body)?)),
        XFRM_MSG_DELPOLICY => deleted_policy(body)?,
        XFRM_MSG_FLUSHPOLICY => XfrmEvent::FlushPolicy,
        XFRM_MSG_ACQUIRE => XfrmEvent::Acquire(Box::new(acquire(body)?)),
        XFRM_MSG_EXPIRE => XfrmEvent::Expire(Box::new(expire(body)?)),
        XFRM_MSG_POLEXPIRE => XfrmEvent::PolicyExpire(Box::new(policy_expire(body)?)),
        XFRM_MSG_MAPPING => XfrmEvent::Mapping(mapping(body)?),
        XFRM_MSG_NEWAE => XfrmEvent::NewAe(Box::new(event_state(body)?)),
        XFRM_MSG_REPORT => report(body)?,
        XFRM_MSG_MIGRATE => XfrmEvent::Migrate(Box::new(policy::split_id(body)?.0)),
        _ => return Ok(None),
    };
    Ok(Some(event))
}

/// DELSA is an identity; the SA itself is inside an attribute, its attributes are beside that.
fn deleted_sa(body: &[u8]) -> Result<XfrmEvent, DecodeError> {
    let (id, attributes) = sa::split_id(body)?;
    let mut info = None;
    attribute::read("SA attributes", attributes, |kind, payload| {
        if kind == XFRMA_SA {
            info = Some(split("XFRMA_SA", payload, XFRM_USER_SA_INFO_LEN)?.0);
        }
        Ok(true)
    })?;
    let entry = info
        .map(|info| sa::entry_from_parts(info, attributes))
        .transpose()?;
    Ok(XfrmEvent::DelSa(
        sa::id_from_wire(&id)?,
        entry.map(without_sa_attribute),
    ))
}

/// The attribute that carried the SA is no unknown attribute of the SA.
fn without_sa_attribute(mut entry: SaEntry) -> Box<SaEntry> {
    entry.sa.other.retain(|raw| raw.kind != XFRMA_SA);
    Box::new(entry)
}

fn deleted_policy(body: &[u8]) -> Result<XfrmEvent, DecodeError> {
    let (id, attributes) = policy::split_id(body)?;
    let mut info = None;
    attribute::read("policy attributes", attributes, |kind, payload| {
        if kind == XFRMA_POLICY {
            info = Some(split("XFRMA_POLICY", payload, XFRM_USER_POLICY_INFO_LEN)?.0);
        }
        Ok(true)
    })?;
    let entry = info
        .map(|info| policy::entry_from_parts(info, attributes))
        .transpose()?;
    let without_policy_attribute = |mut entry: PolicyEntry| {
        entry.policy.other.retain(|raw| raw.kind != XFRMA_POLICY);
        Box::new(entry)
    };
    Ok(XfrmEvent::DelPolicy(
        Box::new(id),
        entry.map(without_policy_attribute),
    ))
}

fn acquire(body: &[u8]) -> Result<Acquire, DecodeError> {
    const WHAT: &str = "xfrm_user_acquire";
    let (structure, attributes) = split(WHAT, body, XFRM_USER_ACQUIRE_LEN)?;
    let wire = parsed(WHAT, UserAcquire::parse(structure))?;
    let (_, policy) = split(WHAT, structure, ACQUIRE_POLICY_OFFSET)?;
    let (policy, _) = split(WHAT, policy, XFRM_USER_POLICY_INFO_LEN)?;
    let mut policy = policy::entry_from_parts(policy, attributes)?;
    // It is the SA's, and the policy knows nothing of it.
    let mut cpu = None;
    for raw in &policy.policy.other {
        if raw.kind == XFRMA_SA_PCPU {
            cpu = Some(u32_from("XFRMA_SA_PCPU", &raw.value)?);
        }
    }
    policy.policy.other.retain(|raw| raw.kind != XFRMA_SA_PCPU);
    // The structure tells no family for the outer addresses; the template does.
    let outer_family = policy
        .policy
        .templates
        .iter()
        .find(|template| template.protocol.number() == wire.id.proto)
        .map_or(wire.selector.family, |template| {
            super::family_of(template.source)
        });
    let mut acquire = Acquire::new(
        ip_address("xfrm_user_acquire.family", &wire.saddr, outer_family)?,
        ip_address("xfrm_user_acquire.family", &wire.id.daddr, outer_family)?,
        Protocol::from_number(wire.id.proto),
        selector_from_wire(&wire.selector)?,
        policy,
    );
    acquire.sequence = wire.seq;
    acquire.cpu = cpu;
    Ok(acquire)
}

fn expire(body: &[u8]) -> Result<Expire, DecodeError> {
    const WHAT: &str = "xfrm_user_expire";
    let (structure, attributes) = split(WHAT, body, XFRM_USER_EXPIRE_LEN)?;
    let wire = parsed(WHAT, UserExpire::parse(structure))?;
    let (info, _) = split(WHAT, structure, XFRM_USER_SA_INFO_LEN)?;
    Ok(Expire {
        entry: sa::entry_from_parts(info, attributes)?,
        hard: wire.hard != 0,
    })
}

fn policy_expire(body: &[u8]) -> Result<PolicyExpire, DecodeError> {
    const WHAT: &str = "xfrm_user_polexpire";
    let (structure, attributes) = split(WHAT, body, XFRM_USER_POLICY_EXPIRE_LEN)?;
    let wire = parsed(WHAT, UserPolicyExpire::parse(structure))?;
    let (info, _) = split(WHAT, structure, XFRM_USER_POLICY_INFO_LEN)?;
    Ok(PolicyExpire {
        entry: policy::entry_from_parts(info, attributes)?,
        hard: wire.hard != 0,
    })
}

fn mapping(body: &[u8]) -> Result<Mapping, DecodeError> {
    const WHAT: &str = "xfrm_user_mapping";
    let (structure, attributes) = split(WHAT, body, XFRM_USER_MAPPING_LEN)?;
    let wire = parsed(WHAT, UserMapping::parse(structure))?;
    Ok(Mapping {
        id: sa::id_from_wire(&wire.id)?,
        reqid: Reqid(wire.reqid),
        old_address: ip_address(WHAT, &wire.old_saddr, wire.id.family)?,
        old_port: wire.old_sport,
        new_address: ip_address(WHAT, &wire.new_saddr, wire.id.family)?,
        new_port: wire.new_sport,
        other: attribute::read("mapping attributes", attributes, |_, _| Ok(false))?,
    })
}

fn report(body: &[u8]) -> Result<XfrmEvent, DecodeError> {
    const WHAT: &str = "xfrm_user_report";
    let (structure, _) = split(WHAT, body, XFRM_USER_REPORT_LEN)?;
    let wire = parsed(WHAT, UserReport::parse(structure))?;
    let selector = optional_selector_from_wire(&wire.selector)?;
    Ok(XfrmEvent::Report(
        Protocol::from_number(wire.proto),
        selector,
    ))
}

/// Reads the body of XFRM_MSG_NEWAE.
pub(crate) fn event_state(body: &[u8]) -> Result<EventState, DecodeError> {
    const WHAT: &str = "xfrm_aevent_id";
    let (structure, attributes) = split(WHAT, body, XFRM_ASYNC_EVENT_ID_LEN)?;
    let wire = parsed(WHAT, AsyncEventId::parse(structure))?;
    let mut state = EventState::new(
        sa::id_from_wire(&wire.sa_id)?,
        ip_address(WHAT, &wire.saddr, wire.sa_id.family)?,
        Reqid(wire.reqid),
    );
    state.flags = EventFlags::from_bits_retain(wire.flags);
    state.other = attribute::read("aevent attributes", attributes, |kind, payload| {
        match kind {
            XFRMA_REPLAY_VAL => state.replay = Some(attribute::replay(payload)?),
            XFRMA_REPLAY_ESN_VAL => state.replay = Some(attribute::replay_esn(payload)?.0),
            XFRMA_LTIME_VAL => {
                let (lifetime, _) = split("XFRMA_LTIME_VAL", payload, XFRM_LIFETIME_LEN)?;
                let lifetime = parsed("XFRMA_LTIME_VAL", Lifetime::parse(lifetime))?;
                state.usage = Some(usage_from_wire(&lifetime));
            }
            XFRMA_REPLAY_THRESH => {
                state.replay_threshold = Some(u32_from("XFRMA_REPLAY_THRESH", payload)?);
            }
            XFRMA_ETIMER_THRESH => {
                state.timer_threshold = Some(u32_from("XFRMA_ETIMER_THRESH", payload)?);
            }
            XFRMA_MARK => state.mark = Some(attribute::mark(payload)?),
            XFRMA_IF_ID => state.if_id = NonZeroU32::new(u32_from("XFRMA_IF_ID", payload)?),
            XFRMA_SA_DIR => state.direction = Some(sa::direction_from_wire(payload)?),
            XFRMA_SA_PCPU => state.cpu = Some(u32_from("XFRMA_SA_PCPU", payload)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(state)
}

/// Writes the body of XFRM_MSG_GETAE, or of XFRM_MSG_NEWAE with thresholds.
pub(crate) fn put_event_state(
    writer: &mut Writer,
    sa: &SaRef,
    flags: EventFlags,
    thresholds: EventThresholds,
) {
    writer.structure(&AsyncEventId {
        sa_id: sa::id_to_wire(&sa.id),
        flags: flags.bits(),
        ..AsyncEventId::default()
    });
    attribute::put_mark(writer, XFRMA_MARK, sa.mark);
    let EventThresholds { replay, timer } = thresholds;
    for (kind, number) in [(XFRMA_REPLAY_THRESH, replay), (XFRMA_ETIMER_THRESH, timer)] {
        if let Some(number) = number {
            writer.attribute_u32(kind, number);
        }
    }
}
