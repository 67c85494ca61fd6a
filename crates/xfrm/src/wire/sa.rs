//! SAs: `xfrm_usersa_info`, `xfrm_usersa_id`, `xfrm_userspi_info` and their attributes.

use std::num::NonZeroU32;

use netlink_packet_xfrm::constants::{
    TCP_ENCAP_ESPINTCP, UDP_ENCAP_ESPINUDP, XFRM_STATE_ESN, XFRMA_ADDRESS_FILTER, XFRMA_ALG_AEAD,
    XFRMA_ALG_AUTH, XFRMA_ALG_AUTH_TRUNC, XFRMA_ALG_COMP, XFRMA_ALG_CRYPT, XFRMA_COADDR,
    XFRMA_ENCAP, XFRMA_ETIMER_THRESH, XFRMA_IF_ID, XFRMA_LASTUSED, XFRMA_MARK, XFRMA_MTIMER_THRESH,
    XFRMA_OFFLOAD_DEV, XFRMA_PROTO, XFRMA_REPLAY_ESN_VAL, XFRMA_REPLAY_THRESH, XFRMA_REPLAY_VAL,
    XFRMA_SA_EXTRA_FLAGS, XFRMA_SEC_CTX, XFRMA_SET_MARK, XFRMA_SET_MARK_MASK, XFRMA_TFCPAD,
};
use netlink_packet_xfrm::{
    Address, EncapTmpl, Id, UserSaId, UserSaInfo, UserSpiInfo, XFRM_ENCAP_TMPL_LEN,
    XFRM_USER_SA_ID_LEN, XFRM_USER_SA_INFO_LEN,
};

use super::attribute::{
    self, XFRMA_NAT_KEEPALIVE_INTERVAL, XFRMA_SA_DIR, XFRMA_SA_PCPU, put_mark, put_offload,
    put_security_context,
};
use super::writer::Writer;
use super::{
    array, family_of, ip_address, limits_from_wire, limits_to_wire, optional_selector_from_wire,
    parsed, selector_to_wire, spi_to_wire, split, u32_from, u64_from, usage_from_wire,
};
use crate::{Aead, Cipher};
use crate::{
    Compression, DecodeError, Encap, EncapKind, Integrity, Mark, Mode, Prefix, Protection,
    Protocol, ReplayState, ReplayWindow, Reqid, Sa, SaDirection, SaEntry, SaExtraFlags, SaFaults,
    SaFilter, SaFlags, SaId, SaRef, Spi, SpiRequest,
};

const SA_DIR_IN: u8 = 1;
const SA_DIR_OUT: u8 = 2;
/// The largest window that `xfrm_usersa_info` itself can say (one 32-bit bitmap).
const LARGEST_PLAIN_WINDOW: u32 = 32;
/// The largest window the kernel takes (`XFRMA_REPLAY_ESN_MAX`, in bits of its bitmap).
const LARGEST_WINDOW: u32 = 4096;

/// Writes the body of XFRM_MSG_NEWSA or XFRM_MSG_UPDSA. The error says what the kernel's format
/// has no way to express.
pub(crate) fn put_sa(writer: &mut Writer, sa: &Sa) -> Result<(), &'static str> {
    if family_of(sa.source) != family_of(sa.destination) {
        return Err("an SA's outer addresses must be of one family");
    }
    if sa.spi.is_none() {
        return Err("an SA needs an SPI");
    }
    if sa.replay_window.packets > LARGEST_WINDOW {
        return Err("a replay window has at most 4096 packets");
    }
    let is_outbound = sa.direction == Some(SaDirection::Out);
    if sa.replay_window.extended && sa.replay_window.packets == 0 && !is_outbound {
        return Err("extended sequence numbers need a replay window");
    }
    writer.structure(&info_to_wire(sa));
    put_protection(writer, &sa.protection)?;
    if let Some(encap) = &sa.encap {
        writer.attribute_structure(XFRMA_ENCAP, &encap_to_wire(encap));
    }
    put_replay_window(writer, sa);
    put_mark(writer, XFRMA_MARK, sa.mark);
    if let Some(Mark { value, mask }) = sa.output_mark {
        writer.attribute_u32(XFRMA_SET_MARK, value);
        writer.attribute_u32(XFRMA_SET_MARK_MASK, mask);
    }
    let extra_flags = sa.extra_flags.bits();
    let numbers = [
        (XFRMA_IF_ID, sa.if_id.map(NonZeroU32::get)),
        (
            XFRMA_SA_EXTRA_FLAGS,
            (extra_flags != 0).then_some(extra_flags),
        ),
        (XFRMA_REPLAY_THRESH, sa.replay_threshold),
        (XFRMA_ETIMER_THRESH, sa.timer_threshold),
        (XFRMA_MTIMER_THRESH, sa.mapping_interval_seconds),
        (XFRMA_TFCPAD, sa.tfc_padding),
        (
            XFRMA_NAT_KEEPALIVE_INTERVAL,
            sa.nat_keepalive_interval_seconds,
        ),
        (XFRMA_SA_PCPU, sa.cpu),
    ];
    for (kind, number) in numbers {
        if let Some(number) = number {
            writer.attribute_u32(kind, number);
        }
    }
    put_direction(writer, sa.direction);
    if let Some(care_of) = &sa.care_of {
        writer.attribute_structure(XFRMA_COADDR, &Address::from_ip(care_of));
    }
    put_offload(writer, sa.offload.as_ref());
    put_security_context(writer, sa.security_context.as_ref())?;
    if let Some(iptfs) = &sa.iptfs {
        attribute::put_iptfs(writer, iptfs);
    }
    for raw in &sa.other {
        writer.attribute_bytes(raw.kind, &raw.value);
    }
    Ok(())
}

fn put_direction(writer: &mut Writer, direction: Option<SaDirection>) {
    let number = match direction {
        None => return,
        Some(SaDirection::In) => SA_DIR_IN,
        Some(SaDirection::Out) => SA_DIR_OUT,
    };
    writer.attribute_bytes(XFRMA_SA_DIR, &[number]);
}

fn info_to_wire(sa: &Sa) -> UserSaInfo {
    let mut flags = sa.flags.bits() & !XFRM_STATE_ESN;
    if sa.replay_window.extended {
        flags |= XFRM_STATE_ESN;
    }
    let plain_window = match sa.replay_window {
        ReplayWindow {
            packets,
            extended: false,
        } if packets <= LARGEST_PLAIN_WINDOW => packets,
        ReplayWindow { .. } => 0,
    };
    UserSaInfo {
        selector: sa
            .selector
            .as_ref()
            .map(selector_to_wire)
            .unwrap_or_default(),
        id: Id {
            daddr: Address::from_ip(&sa.destination),
            spi: spi_to_wire(sa.spi),
            proto: sa.protocol.number(),
        },
        saddr: Address::from_ip(&sa.source),
        lifetime_cfg: limits_to_wire(&sa.limits),
        reqid: sa.reqid.0,
        family: family_of(sa.destination),
        mode: sa.mode.number(),
        replay_window: u8::try_from(plain_window).unwrap_or(0),
        flags,
        ..UserSaInfo::default()
    }
}

fn put_protection(writer: &mut Writer, protection: &Protection) -> Result<(), &'static str> {
    let checked = |name: &str| match name.len() {
        1..=attribute::LONGEST_ALGORITHM_NAME => Ok(()),
        _ => Err("an algorithm's name has 1 to 63 bytes"),
    };
    let put_integrity = |writer: &mut Writer, integrity: &Integrity| {
        checked(&integrity.name)?;
        match integrity.truncation_bits {
            Some(bits) => {
                let kind = XFRMA_ALG_AUTH_TRUNC;
                attribute::put_integrity_truncated(writer, kind, integrity, bits);
            }
            None => attribute::put_integrity(writer, XFRMA_ALG_AUTH, integrity),
        }
        Ok(())
    };
    match protection {
        Protection::Larval => Err("an SA needs an algorithm"),
        Protection::Aead(aead) => {
            checked(&aead.name)?;
            attribute::put_aead(writer, XFRMA_ALG_AEAD, aead);
            Ok(())
        }
        Protection::Encryption { cipher, integrity } => {
            checked(&cipher.name)?;
            attribute::put_cipher(writer, XFRMA_ALG_CRYPT, cipher);
            integrity
                .as_ref()
                .map_or(Ok(()), |integrity| put_integrity(writer, integrity))
        }
        Protection::Integrity(integrity) => put_integrity(writer, integrity),
        Protection::Compression(compression) => {
            checked(&compression.name)?;
            attribute::put_compression(writer, XFRMA_ALG_COMP, compression);
            Ok(())
        }
    }
}

/// Windows that one 32-bit bitmap holds go into `xfrm_usersa_info`; larger ones and ESN need the
/// attribute.
fn put_replay_window(writer: &mut Writer, sa: &Sa) {
    let ReplayWindow { packets, extended } = sa.replay_window;
    if extended || packets > LARGEST_PLAIN_WINDOW {
        let fresh = ReplayState::default();
        let state = sa.initial_replay.as_ref().unwrap_or(&fresh);
        attribute::put_replay_esn(writer, XFRMA_REPLAY_ESN_VAL, state, packets);
    } else if let Some(state) = &sa.initial_replay {
        attribute::put_replay(writer, XFRMA_REPLAY_VAL, state);
    }
}

fn encap_to_wire(encap: &Encap) -> EncapTmpl {
    EncapTmpl {
        encap_type: match encap.kind {
            EncapKind::EspInUdp => UDP_ENCAP_ESPINUDP,
            EncapKind::EspInTcp => TCP_ENCAP_ESPINTCP,
            EncapKind::Other(number) => number,
        },
        encap_sport: encap.source_port,
        encap_dport: encap.destination_port,
        encap_oa: encap
            .original_address
            .as_ref()
            .map(Address::from_ip)
            .unwrap_or_default(),
    }
}

fn encap_from_wire(payload: &[u8], family: u16) -> Result<Encap, DecodeError> {
    const WHAT: &str = "XFRMA_ENCAP";
    let (structure, _) = split(WHAT, payload, XFRM_ENCAP_TMPL_LEN)?;
    let wire = parsed(WHAT, EncapTmpl::parse(structure))?;
    let original_address = ip_address(WHAT, &wire.encap_oa, family)?;
    Ok(Encap {
        kind: match wire.encap_type {
            UDP_ENCAP_ESPINUDP => EncapKind::EspInUdp,
            TCP_ENCAP_ESPINTCP => EncapKind::EspInTcp,
            number => EncapKind::Other(number),
        },
        source_port: wire.encap_sport,
        destination_port: wire.encap_dport,
        original_address: (!original_address.is_unspecified()).then_some(original_address),
    })
}

/// Reads the body of XFRM_MSG_NEWSA or XFRM_MSG_UPDSA.
pub(crate) fn entry(body: &[u8]) -> Result<SaEntry, DecodeError> {
    let (info, attributes) = split("xfrm_usersa_info", body, XFRM_USER_SA_INFO_LEN)?;
    entry_from_parts(info, attributes)
}

/// Reads an `xfrm_usersa_info` and attributes that stand somewhere else.
pub(crate) fn entry_from_parts(info: &[u8], attributes: &[u8]) -> Result<SaEntry, DecodeError> {
    let info = parsed("xfrm_usersa_info", UserSaInfo::parse(info))?;
    let mut entry = entry_from_info(&info)?;
    let mut algorithms = Algorithms::default();
    let mut set_mark = None;
    let mut set_mask = None;
    let sa = &mut entry.sa;
    sa.other = attribute::read("SA attributes", attributes, |kind, payload| {
        match kind {
            XFRMA_ALG_AEAD => algorithms.aead = Some(attribute::aead(payload)?),
            XFRMA_ALG_CRYPT => algorithms.cipher = Some(attribute::cipher(payload)?),
            XFRMA_ALG_AUTH => {
                let plain = attribute::integrity(payload)?;
                algorithms.integrity.get_or_insert(plain);
            }
            XFRMA_ALG_AUTH_TRUNC => {
                algorithms.integrity = Some(attribute::integrity_truncated(payload)?);
            }
            XFRMA_ALG_COMP => algorithms.compression = Some(attribute::compression(payload)?),
            XFRMA_ENCAP => sa.encap = Some(encap_from_wire(payload, info.family)?),
            XFRMA_REPLAY_VAL => entry.replay = Some(attribute::replay(payload)?),
            XFRMA_REPLAY_ESN_VAL => {
                let (state, window) = attribute::replay_esn(payload)?;
                sa.replay_window.packets = window;
                entry.replay = Some(state);
            }
            XFRMA_MARK => sa.mark = Some(attribute::mark(payload)?),
            XFRMA_SET_MARK => set_mark = Some(u32_from("XFRMA_SET_MARK", payload)?),
            XFRMA_SET_MARK_MASK => set_mask = Some(u32_from("XFRMA_SET_MARK_MASK", payload)?),
            XFRMA_IF_ID => sa.if_id = NonZeroU32::new(u32_from("XFRMA_IF_ID", payload)?),
            XFRMA_SA_EXTRA_FLAGS => {
                let bits = u32_from("XFRMA_SA_EXTRA_FLAGS", payload)?;
                sa.extra_flags = SaExtraFlags::from_bits_retain(bits);
            }
            XFRMA_REPLAY_THRESH => {
                sa.replay_threshold = Some(u32_from("XFRMA_REPLAY_THRESH", payload)?);
            }
            XFRMA_ETIMER_THRESH => {
                sa.timer_threshold = Some(u32_from("XFRMA_ETIMER_THRESH", payload)?);
            }
            XFRMA_MTIMER_THRESH => {
                let seconds = u32_from("XFRMA_MTIMER_THRESH", payload)?;
                sa.mapping_interval_seconds = Some(seconds);
            }
            XFRMA_TFCPAD => sa.tfc_padding = Some(u32_from("XFRMA_TFCPAD", payload)?),
            XFRMA_LASTUSED => entry.last_used = Some(u64_from("XFRMA_LASTUSED", payload)?),
            XFRMA_SA_DIR => sa.direction = Some(direction_from_wire(payload)?),
            XFRMA_COADDR => {
                let address = Address {
                    addr: array("XFRMA_COADDR", payload)?,
                };
                sa.care_of = Some(ip_address("XFRMA_COADDR", &address, info.family)?);
            }
            XFRMA_OFFLOAD_DEV => sa.offload = Some(attribute::offload(payload)?),
            XFRMA_SA_PCPU => sa.cpu = Some(u32_from("XFRMA_SA_PCPU", payload)?),
            XFRMA_NAT_KEEPALIVE_INTERVAL => {
                let seconds = u32_from("XFRMA_NAT_KEEPALIVE_INTERVAL", payload)?;
                sa.nat_keepalive_interval_seconds = Some(seconds);
            }
            XFRMA_SEC_CTX => sa.security_context = Some(attribute::security_context(payload)?),
            _ => return attribute::iptfs(kind, payload, &mut sa.iptfs),
        }
        Ok(true)
    })?;
    sa.protection = algorithms.into();
    sa.output_mark = match (set_mark, set_mask) {
        (None, None) => None,
        (value, mask) => Some(Mark {
            value: value.unwrap_or(0),
            mask: mask.unwrap_or(u32::MAX),
        }),
    };
    Ok(entry)
}

pub(crate) fn direction_from_wire(payload: &[u8]) -> Result<SaDirection, DecodeError> {
    let [number] = array("XFRMA_SA_DIR", payload)?;
    match number {
        SA_DIR_IN => Ok(SaDirection::In),
        SA_DIR_OUT => Ok(SaDirection::Out),
        other => Err(DecodeError::value("XFRMA_SA_DIR", other)),
    }
}

fn entry_from_info(info: &UserSaInfo) -> Result<SaEntry, DecodeError> {
    const WHAT: &str = "xfrm_usersa_info.family";
    let source = ip_address(WHAT, &info.saddr, info.family)?;
    let destination = ip_address(WHAT, &info.id.daddr, info.family)?;
    let mut sa = Sa::new(source, destination, Protocol::from_number(info.id.proto));
    sa.spi = Spi::new(info.id.spi);
    sa.reqid = Reqid(info.reqid);
    sa.mode = Mode::from_number(info.mode);
    sa.replay_window = ReplayWindow {
        packets: u32::from(info.replay_window),
        extended: info.flags & XFRM_STATE_ESN != 0,
    };
    sa.limits = limits_from_wire(&info.lifetime_cfg);
    sa.selector = optional_selector_from_wire(&info.selector)?;
    sa.flags = SaFlags::from_bits_retain(info.flags & !XFRM_STATE_ESN);
    Ok(SaEntry {
        sa,
        usage: usage_from_wire(&info.lifetime_cur),
        faults: SaFaults {
            outside_window: info.stats.replay_window,
            replayed: info.stats.replay,
            integrity: info.stats.integrity_failed,
        },
        replay: None,
        last_used: None,
        acquire_sequence: info.seq,
    })
}

/// The algorithm attributes as they come, in any order.
#[derive(Default)]
struct Algorithms {
    aead: Option<Aead>,
    cipher: Option<Cipher>,
    integrity: Option<Integrity>,
    compression: Option<Compression>,
}

impl From<Algorithms> for Protection {
    fn from(algorithms: Algorithms) -> Self {
        match algorithms {
            Algorithms {
                aead: Some(aead), ..
            } => Self::Aead(aead),
            Algorithms {
                cipher: Some(cipher),
                integrity,
                ..
            } => Self::Encryption { cipher, integrity },
            Algorithms {
                integrity: Some(integrity),
                ..
            } => Self::Integrity(integrity),
            Algorithms {
                compression: Some(compression),
                ..
            } => Self::Compression(compression),
            Algorithms { .. } => Self::Larval,
        }
    }
}

pub(crate) fn id_to_wire(id: &SaId) -> UserSaId {
    UserSaId {
        daddr: Address::from_ip(&id.destination),
        spi: id.spi.get(),
        family: family_of(id.destination),
        proto: id.protocol.number(),
    }
}

/// Reads an `xfrm_usersa_id`; an SPI of zero is an error, because nothing but a larval SA has it.
pub(crate) fn id_from_wire(wire: &UserSaId) -> Result<SaId, DecodeError> {
    Ok(SaId {
        destination: ip_address("xfrm_usersa_id.family", &wire.daddr, wire.family)?,
        protocol: Protocol::from_number(wire.proto),
        spi: Spi::new(wire.spi).ok_or(DecodeError::value("xfrm_usersa_id.spi", wire.spi))?,
    })
}

/// Takes an `xfrm_usersa_id` from the front of a body.
pub(crate) fn split_id(body: &[u8]) -> Result<(UserSaId, &[u8]), DecodeError> {
    const WHAT: &str = "xfrm_usersa_id";
    let (id, attributes) = split(WHAT, body, XFRM_USER_SA_ID_LEN)?;
    Ok((parsed(WHAT, UserSaId::parse(id))?, attributes))
}

/// Writes the body of XFRM_MSG_DELSA or XFRM_MSG_GETSA.
pub(crate) fn put_ref(writer: &mut Writer, sa: &SaRef) {
    writer.structure(&id_to_wire(&sa.id));
    put_mark(writer, XFRMA_MARK, sa.mark);
}

/// Writes what follows the header of a XFRM_MSG_GETSA that asks for a list: attributes alone
/// (`xfrm_dump_sa`).
pub(crate) fn put_filter(writer: &mut Writer, filter: &SaFilter) -> Result<(), &'static str> {
    let SaFilter {
        protocol,
        source,
        destination,
    } = *filter;
    if let Some(protocol) = protocol {
        writer.attribute_bytes(XFRMA_PROTO, &[protocol.number()]);
    }
    let family = match (source, destination) {
        (None, None) => return Ok(()),
        (Some(one), None) | (None, Some(one)) => family_of(one.address()),
        (Some(one), Some(other)) => {
            if family_of(one.address()) != family_of(other.address()) {
                return Err("source and destination of a filter must be of one family");
            }
            family_of(one.address())
        }
    };
    let to_wire = |prefix: Option<Prefix>| {
        prefix.map_or((Address::default(), 0), |prefix| {
            (Address::from_ip(&prefix.address()), prefix.length())
        })
    };
    let ((source, source_length), (destination, destination_length)) =
        (to_wire(source), to_wire(destination));
    writer.attribute(XFRMA_ADDRESS_FILTER, |writer| {
        writer.structure(&source);
        writer.structure(&destination);
        writer.put(&family.to_ne_bytes());
        writer.put(&[source_length, destination_length]);
    });
    Ok(())
}

/// Writes the body of XFRM_MSG_ALLOCSPI.
pub(crate) fn put_spi_request(
    writer: &mut Writer,
    wanted: &SpiRequest,
) -> Result<(), &'static str> {
    if family_of(wanted.source) != family_of(wanted.destination) {
        return Err("an SA's outer addresses must be of one family");
    }
    if wanted.range.is_empty() || *wanted.range.start() == 0 {
        return Err("an SPI range must not be empty, and SPIs start at 1");
    }
    let mut sa = Sa::new(wanted.source, wanted.destination, wanted.protocol);
    sa.mode = wanted.mode;
    sa.reqid = wanted.reqid;
    writer.structure(&UserSpiInfo {
        info: UserSaInfo {
            seq: wanted.acquire_sequence,
            ..info_to_wire(&sa)
        },
        min: *wanted.range.start(),
        max: *wanted.range.end(),
    });
    put_mark(writer, XFRMA_MARK, wanted.mark);
    if let Some(if_id) = wanted.if_id {
        writer.attribute_u32(XFRMA_IF_ID, if_id.get());
    }
    put_direction(writer, wanted.direction);
    if let Some(cpu) = wanted.cpu {
        writer.attribute_u32(XFRMA_SA_PCPU, cpu);
    }
    Ok(())
}
