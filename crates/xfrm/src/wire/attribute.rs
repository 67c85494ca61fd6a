//! Netlink attributes: walking them without trusting a length, and the XFRM ones whose payload
//! several messages share.

use netlink_packet_core::{NLA_TYPE_MASK, NlaBuffer, NlasIterator};
use netlink_packet_xfrm::constants::{XFRMA_OFFLOAD_DEV, XFRMA_PAD, XFRMA_SEC_CTX};

use super::{array, split, u32_from, writer::Writer};
use crate::{
    Aead, Cipher, Compression, DecodeError, Integrity, Iptfs, Key, Mark, Offload, OffloadFlags,
    RawAttribute, ReplayState, SecurityContext,
};

/// Linux 6.10.
pub(crate) const XFRMA_SA_DIR: u16 = 33;
/// Linux 6.11.
pub(crate) const XFRMA_NAT_KEEPALIVE_INTERVAL: u16 = 34;
/// Linux 6.13.
pub(crate) const XFRMA_SA_PCPU: u16 = 35;
/// Linux 6.14, as the following ones.
pub(crate) const XFRMA_IPTFS_DROP_TIME: u16 = 36;
pub(crate) const XFRMA_IPTFS_REORDER_WINDOW: u16 = 37;
pub(crate) const XFRMA_IPTFS_DONT_FRAG: u16 = 38;
pub(crate) const XFRMA_IPTFS_INIT_DELAY: u16 = 39;
pub(crate) const XFRMA_IPTFS_MAX_QSIZE: u16 = 40;
pub(crate) const XFRMA_IPTFS_PKT_SIZE: u16 = 41;

/// `struct xfrm_user_offload`: an int and a byte, padded.
const OFFLOAD_LENGTH: usize = 8;
/// `struct xfrm_user_sec_ctx`: two 16-bit numbers, two bytes, the label's length.
const SECURITY_CONTEXT_LENGTH: usize = 8;
/// The kernel's `char alg_name[64]`.
const ALGORITHM_NAME_LENGTH: usize = 64;
/// An algorithm's name without the terminating zero.
pub(crate) const LONGEST_ALGORITHM_NAME: usize = ALGORITHM_NAME_LENGTH - 1;
/// `struct xfrm_replay_state_esn` without its bitmap.
const REPLAY_ESN_LENGTH: usize = netlink_packet_xfrm::XFRM_REPLAY_ESN_LEN;
/// `struct xfrm_replay_state`.
const REPLAY_LENGTH: usize = netlink_packet_xfrm::XFRM_REPLAY_LEN;

/// Calls `take` with every attribute's number and payload. It says by `false` that it does not
/// know one, which is then kept raw.
pub(crate) fn read<'a>(
    what: &'static str,
    bytes: &'a [u8],
    mut take: impl FnMut(u16, &'a [u8]) -> Result<bool, DecodeError>,
) -> Result<Vec<RawAttribute>, DecodeError> {
    let mut unknown = Vec::new();
    for attribute in NlasIterator::new(bytes) {
        let attribute: NlaBuffer<&'a [u8]> =
            attribute.map_err(|_| DecodeError::short(what, bytes.len() + 1, bytes.len()))?;
        let kind = attribute.kind() & NLA_TYPE_MASK;
        let end = usize::from(attribute.length());
        let payload = attribute
            .into_inner()
            .get(super::writer::ATTRIBUTE_HEADER_LENGTH..end)
            .unwrap_or_default();
        if kind != XFRMA_PAD && !take(kind, payload)? {
            unknown.push(RawAttribute {
                kind,
                value: payload.to_vec(),
            });
        }
    }
    Ok(unknown)
}

pub(crate) fn mark(payload: &[u8]) -> Result<Mark, DecodeError> {
    let (value, mask) = split("XFRMA_MARK", payload, 4)?;
    Ok(Mark {
        value: u32_from("XFRMA_MARK", value)?,
        mask: u32_from("XFRMA_MARK", mask)?,
    })
}

pub(crate) fn put_mark(writer: &mut Writer, kind: u16, mark: Option<Mark>) {
    if let Some(Mark { value, mask }) = mark {
        writer.attribute(kind, |writer| {
            writer.put(&value.to_ne_bytes());
            writer.put(&mask.to_ne_bytes());
        });
    }
}

pub(crate) fn offload(payload: &[u8]) -> Result<Offload, DecodeError> {
    let [a, b, c, d, flags, ..]: [u8; OFFLOAD_LENGTH] = array("XFRMA_OFFLOAD_DEV", payload)?;
    Ok(Offload {
        interface_index: i32::from_ne_bytes([a, b, c, d]),
        flags: OffloadFlags::from_bits_retain(flags),
    })
}

pub(crate) fn put_offload(writer: &mut Writer, offload: Option<&Offload>) {
    if let Some(offload) = offload {
        writer.attribute(XFRMA_OFFLOAD_DEV, |writer| {
            writer.put(&offload.interface_index.to_ne_bytes());
            writer.put(&[offload.flags.bits(), 0, 0, 0]);
        });
    }
}

pub(crate) fn security_context(payload: &[u8]) -> Result<SecurityContext, DecodeError> {
    const WHAT: &str = "XFRMA_SEC_CTX";
    let (head, label) = split(WHAT, payload, SECURITY_CONTEXT_LENGTH)?;
    let [_, _, _, _, algorithm, domain, low, high]: [u8; SECURITY_CONTEXT_LENGTH] =
        array(WHAT, head)?;
    let (label, _) = split(WHAT, label, u16::from_ne_bytes([low, high]).into())?;
    Ok(SecurityContext {
        domain,
        algorithm,
        label: label.to_vec(),
    })
}

/// The longest label that the structure and the attribute around it can say.
const LONGEST_LABEL: usize =
    u16::MAX as usize - SECURITY_CONTEXT_LENGTH - super::writer::ATTRIBUTE_HEADER_LENGTH;

pub(crate) fn put_security_context(
    writer: &mut Writer,
    context: Option<&SecurityContext>,
) -> Result<(), &'static str> {
    let Some(context) = context else {
        return Ok(());
    };
    let too_long = "a security label has at most 65523 bytes";
    if context.label.len() > LONGEST_LABEL {
        return Err(too_long);
    }
    let label_length = u16::try_from(context.label.len()).map_err(|_| too_long)?;
    let length =
        u16::try_from(SECURITY_CONTEXT_LENGTH + context.label.len()).map_err(|_| too_long)?;
    writer.attribute(XFRMA_SEC_CTX, |writer| {
        writer.put(&length.to_ne_bytes());
        writer.put(&XFRMA_SEC_CTX.to_ne_bytes());
        writer.put(&[context.algorithm, context.domain]);
        writer.put(&label_length.to_ne_bytes());
        writer.put(&context.label);
    });
    Ok(())
}

/// Takes a setting of IP-TFS; false if the attribute is none.
pub(crate) fn iptfs(
    kind: u16,
    payload: &[u8],
    settings: &mut Option<Iptfs>,
) -> Result<bool, DecodeError> {
    let mut iptfs = settings.unwrap_or_default();
    match kind {
        XFRMA_IPTFS_DROP_TIME => {
            iptfs.drop_time_microseconds = Some(u32_from("XFRMA_IPTFS_DROP_TIME", payload)?);
        }
        XFRMA_IPTFS_REORDER_WINDOW => {
            let packets = array("XFRMA_IPTFS_REORDER_WINDOW", payload)?;
            iptfs.reorder_window_packets = Some(u16::from_ne_bytes(packets));
        }
        XFRMA_IPTFS_DONT_FRAG => iptfs.dont_fragment = true,
        XFRMA_IPTFS_INIT_DELAY => {
            iptfs.initial_delay_microseconds = Some(u32_from("XFRMA_IPTFS_INIT_DELAY", payload)?);
        }
        XFRMA_IPTFS_MAX_QSIZE => {
            iptfs.queue_octets_max = Some(u32_from("XFRMA_IPTFS_MAX_QSIZE", payload)?);
        }
        XFRMA_IPTFS_PKT_SIZE => {
            iptfs.packet_octets = Some(u32_from("XFRMA_IPTFS_PKT_SIZE", payload)?);
        }
        _ => return Ok(false),
    }
    *settings = Some(iptfs);
    Ok(true)
}

pub(crate) fn put_iptfs(writer: &mut Writer, iptfs: &Iptfs) {
    let numbers = [
        (XFRMA_IPTFS_DROP_TIME, iptfs.drop_time_microseconds),
        (XFRMA_IPTFS_INIT_DELAY, iptfs.initial_delay_microseconds),
        (XFRMA_IPTFS_MAX_QSIZE, iptfs.queue_octets_max),
        (XFRMA_IPTFS_PKT_SIZE, iptfs.packet_octets),
    ];
    for (kind, number) in numbers {
        if let Some(number) = number {
            writer.attribute_u32(kind, number);
        }
    }
    if let Some(packets) = iptfs.reorder_window_packets {
        writer.attribute_bytes(XFRMA_IPTFS_REORDER_WINDOW, &packets.to_ne_bytes());
    }
    if iptfs.dont_fragment {
        writer.attribute_bytes(XFRMA_IPTFS_DONT_FRAG, &[]);
    }
}

/// The name, the `numbers` 32-bit numbers behind it (the first is the key's length in bits), and
/// the key.
fn algorithm<const NUMBERS: usize>(
    what: &'static str,
    payload: &[u8],
) -> Result<(String, [u32; NUMBERS], Key), DecodeError> {
    let (name, rest) = split(what, payload, ALGORITHM_NAME_LENGTH)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let (head, key) = split(what, rest, NUMBERS * 4)?;
    let mut numbers = [0; NUMBERS];
    for (number, bytes) in numbers.iter_mut().zip(head.chunks_exact(4)) {
        *number = u32_from(what, bytes)?;
    }
    let key_length = numbers.first().map_or(0, |bits| bits.div_ceil(8)) as usize;
    let (key, _) = split(what, key, key_length)?;
    Ok((
        String::from_utf8_lossy(name).into_owned(),
        numbers,
        Key::from(key),
    ))
}

fn put_algorithm(writer: &mut Writer, kind: u16, name: &str, numbers: &[u32], key: &[u8]) {
    writer.attribute(kind, |writer| {
        let name = name.as_bytes();
        let name = name.get(..LONGEST_ALGORITHM_NAME).unwrap_or(name);
        writer.put(name);
        writer.zeros(ALGORITHM_NAME_LENGTH - name.len());
        for number in numbers {
            writer.put(&number.to_ne_bytes());
        }
        writer.put(key);
    });
}

pub(crate) fn aead(payload: &[u8]) -> Result<Aead, DecodeError> {
    let (name, [_, icv_bits], key) = algorithm("XFRMA_ALG_AEAD", payload)?;
    Ok(Aead {
        name,
        key,
        icv_bits,
    })
}

pub(crate) fn put_aead(writer: &mut Writer, kind: u16, aead: &Aead) {
    let numbers = [aead.key.bits(), aead.icv_bits];
    put_algorithm(writer, kind, &aead.name, &numbers, aead.key.expose());
}

pub(crate) fn cipher(payload: &[u8]) -> Result<Cipher, DecodeError> {
    let (name, [_], key) = algorithm("XFRMA_ALG_CRYPT", payload)?;
    Ok(Cipher { name, key })
}

pub(crate) fn put_cipher(writer: &mut Writer, kind: u16, cipher: &Cipher) {
    put_algorithm(
        writer,
        kind,
        &cipher.name,
        &[cipher.key.bits()],
        cipher.key.expose(),
    );
}

pub(crate) fn integrity(payload: &[u8]) -> Result<Integrity, DecodeError> {
    let (name, [_], key) = algorithm("XFRMA_ALG_AUTH", payload)?;
    Ok(Integrity {
        name,
        key,
        truncation_bits: None,
    })
}

pub(crate) fn put_integrity(writer: &mut Writer, kind: u16, integrity: &Integrity) {
    let (name, key) = (&integrity.name, &integrity.key);
    put_algorithm(writer, kind, name, &[key.bits()], key.expose());
}

pub(crate) fn integrity_truncated(payload: &[u8]) -> Result<Integrity, DecodeError> {
    let (name, [_, bits], key) = algorithm("XFRMA_ALG_AUTH_TRUNC", payload)?;
    Ok(Integrity {
        name,
        key,
        truncation_bits: Some(bits),
    })
}

pub(crate) fn put_integrity_truncated(
    writer: &mut Writer,
    kind: u16,
    integrity: &Integrity,
    bits: u32,
) {
    let (name, key) = (&integrity.name, &integrity.key);
    put_algorithm(writer, kind, name, &[key.bits(), bits], key.expose());
}

pub(crate) fn compression(payload: &[u8]) -> Result<Compression, DecodeError> {
    let (name, [_], _) = algorithm("XFRMA_ALG_COMP", payload)?;
    Ok(Compression { name })
}

pub(crate) fn put_compression(writer: &mut Writer, kind: u16, compression: &Compression) {
    put_algorithm(writer, kind, &compression.name, &[0], &[]);
}

/// `struct xfrm_replay_state`.
pub(crate) fn replay(payload: &[u8]) -> Result<ReplayState, DecodeError> {
    const WHAT: &str = "XFRMA_REPLAY_VAL";
    let bytes: [u8; REPLAY_LENGTH] = array(WHAT, payload)?;
    let [outbound, inbound, bitmap] = words(WHAT, &bytes)?;
    Ok(ReplayState {
        outbound: u64::from(outbound),
        inbound: u64::from(inbound),
        bitmap: vec![bitmap],
    })
}

/// `struct xfrm_replay_state_esn`: the state, and the window in packets.
pub(crate) fn replay_esn(payload: &[u8]) -> Result<(ReplayState, u32), DecodeError> {
    const WHAT: &str = "XFRMA_REPLAY_ESN_VAL";
    let (head, rest) = split(WHAT, payload, REPLAY_ESN_LENGTH)?;
    let [
        bitmap_words,
        outbound,
        inbound,
        outbound_high,
        inbound_high,
        window,
    ] = words(WHAT, head)?;
    let bitmap_bytes = usize::try_from(bitmap_words)
        .unwrap_or(usize::MAX)
        .saturating_mul(4);
    let (bitmap, _) = split(WHAT, rest, bitmap_bytes)?;
    let bitmap = bitmap
        .chunks_exact(4)
        .map(|word| u32_from(WHAT, word))
        .collect::<Result<Vec<u32>, DecodeError>>()?;
    let wide = |high: u32, low: u32| (u64::from(high) << 32) | u64::from(low);
    let state = ReplayState {
        outbound: wide(outbound_high, outbound),
        inbound: wide(inbound_high, inbound),
        bitmap,
    };
    Ok((state, window))
}

pub(crate) fn put_replay(writer: &mut Writer, kind: u16, state: &ReplayState) {
    writer.attribute(kind, |writer| {
        let bitmap = state.bitmap.first().copied().unwrap_or(0);
        for word in [low(state.outbound), low(state.inbound), bitmap] {
            writer.put(&word.to_ne_bytes());
        }
    });
}

pub(crate) fn put_replay_esn(writer: &mut Writer, kind: u16, state: &ReplayState, window: u32) {
    writer.attribute(kind, |writer| {
        let bitmap_words = window.div_ceil(u32::BITS);
        let high = |number: u64| low(number >> 32);
        let (outbound, inbound) = (state.outbound, state.inbound);
        let head = [
            bitmap_words,
            low(outbound),
            low(inbound),
            high(outbound),
            high(inbound),
            window,
        ];
        for word in head {
            writer.put(&word.to_ne_bytes());
        }
        let bitmap = state.bitmap.iter().copied().chain(std::iter::repeat(0));
        for word in bitmap.take(bitmap_words as usize) {
            writer.put(&word.to_ne_bytes());
        }
    });
}

#[allow(clippy::cast_possible_truncation)] // The low half is what is wanted.
fn low(number: u64) -> u32 {
    number as u32
}

/// Reads `N` 32-bit numbers.
pub(crate) fn words<const N: usize>(
    what: &'static str,
    bytes: &[u8],
) -> Result<[u32; N], DecodeError> {
    if bytes.len() < N * 4 {
        return Err(DecodeError::short(what, N * 4, bytes.len()));
    }
    let mut numbers = [0; N];
    for (number, word) in numbers.iter_mut().zip(bytes.chunks_exact(4)) {
        *number = u32_from(what, word)?;
    }
    Ok(numbers)
}
