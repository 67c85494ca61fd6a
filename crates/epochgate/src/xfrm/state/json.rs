//! An SA as JSON: every attribute, and the policies that lead to it.

use std::net::IpAddr;

use epochgate_xfrm::{
    Aead, Cipher, Encap, EncapKind, Integrity, Iptfs, Key, Protection, SaEntry, Usage,
};
use serde::Serialize;

use super::wide::flag_names;
use super::{Sequence, State};
use crate::xfrm::json::{
    self, LimitsJson, MarkJson, OffloadJson, RawJson, SecurityJson, SelectorJson,
};
use crate::xfrm::partners::{Lead, Leads, SaWay, Told};
use crate::xfrm::surroundings::Surroundings;
use crate::xfrm::{ours, words};

/// An SA.
#[derive(Debug, Serialize)]
pub(crate) struct StateJson {
    source: IpAddr,
    destination: IpAddr,
    protocol: String,
    /// `null` for a larval SA without one.
    spi: Option<String>,
    reqid: u32,
    /// `epochgate`, or `null` for anybody else.
    owner: Option<&'static str>,
    mode: String,
    direction: Option<&'static str>,
    /// `kernel`, `addresses` or `policies`.
    direction_from: Option<&'static str>,
    larval: bool,
    /// The short name of the algorithms, as in the table; `null` where none are told.
    algorithms: Option<String>,
    aead: Option<AlgorithmJson>,
    encryption: Option<AlgorithmJson>,
    integrity: Option<AlgorithmJson>,
    compression: Option<AlgorithmJson>,
    encapsulation: Option<EncapJson>,
    selector: Option<SelectorJson>,
    mark: Option<MarkJson>,
    output_mark: Option<MarkJson>,
    if_id: Option<u32>,
    /// The interface that has the if_id.
    interface: Option<String>,
    replay: ReplayJson,
    limits: LimitsJson,
    usage: UsageJson,
    refused: FaultsJson,
    flags: Vec<String>,
    offload: Option<OffloadJson>,
    cpu: Option<u32>,
    nat_keepalive_interval_seconds: Option<u32>,
    security_context: Option<SecurityJson>,
    iptfs: Option<IptfsJson>,
    care_of: Option<IpAddr>,
    tfc_padding: Option<u32>,
    mapping_interval_seconds: Option<u32>,
    replay_threshold: Option<u32>,
    timer_threshold: Option<u32>,
    acquire_sequence: u32,
    /// Attributes that this version does not know.
    attributes: Vec<RawJson>,
    /// `null` where nobody looked, as in events.
    used_by: Option<UsedByJson>,
}

/// An algorithm.
#[derive(Debug, Serialize)]
pub(crate) struct AlgorithmJson {
    /// The kernel's name.
    name: String,
    key_bits: u32,
    icv_bits: Option<u32>,
    /// With --show-keys only.
    key: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct EncapJson {
    kind: String,
    source_port: u16,
    destination_port: u16,
    original_address: Option<IpAddr>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ReplayJson {
    window: u32,
    extended: bool,
    outbound: Option<SequenceJson>,
    inbound: Option<SequenceJson>,
    /// Which of the last packets were received, as the kernel keeps them.
    bitmap: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct SequenceJson {
    last: u64,
    left: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct UsageJson {
    bytes: u64,
    packets: u64,
    added: u64,
    first_used: Option<u64>,
    last_used: Option<u64>,
    age_seconds: u64,
    idle_seconds: Option<u64>,
}

impl UsageJson {
    pub(crate) fn of(usage: &Usage, last_used: Option<u64>, host: &Surroundings) -> Self {
        Self {
            bytes: usage.bytes,
            packets: usage.packets,
            added: usage.added,
            first_used: usage.first_used,
            last_used,
            age_seconds: host.ago(usage.added),
            idle_seconds: last_used.or(usage.first_used).map(|last| host.ago(last)),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct FaultsJson {
    outside_window: u32,
    replayed: u32,
    integrity: u32,
}

/// How packets are aggregated and fragmented (RFC 9347).
#[derive(Debug, Serialize)]
pub(crate) struct IptfsJson {
    drop_time_microseconds: Option<u32>,
    reorder_window_packets: Option<u16>,
    dont_fragment: bool,
    initial_delay_microseconds: Option<u32>,
    queue_octets_max: Option<u32>,
    packet_octets: Option<u32>,
}

impl From<&Iptfs> for IptfsJson {
    fn from(iptfs: &Iptfs) -> Self {
        Self {
            drop_time_microseconds: iptfs.drop_time_microseconds,
            reorder_window_packets: iptfs.reorder_window_packets,
            dont_fragment: iptfs.dont_fragment,
            initial_delay_microseconds: iptfs.initial_delay_microseconds,
            queue_octets_max: iptfs.queue_octets_max,
            packet_octets: iptfs.packet_octets,
        }
    }
}

/// The policies that lead to an SA.
#[derive(Debug, Serialize)]
pub(crate) struct UsedByJson {
    count: u64,
    inbound: u64,
    outbound: u64,
    /// All policies were looked at.
    complete: bool,
    /// The first ones.
    policies: Vec<LeadJson>,
}

#[derive(Debug, Serialize)]
pub(crate) struct LeadJson {
    direction: String,
    selector: SelectorJson,
    priority: u32,
    index: u32,
    /// It pins the SA's SPI.
    pinned: bool,
}

impl From<&Leads> for UsedByJson {
    fn from(leads: &Leads) -> Self {
        let one = |lead: &Lead| LeadJson {
            direction: lead.direction.to_string(),
            selector: SelectorJson::from(&lead.selector),
            priority: lead.priority,
            index: lead.index,
            pinned: lead.pinned,
        };
        Self {
            count: leads.count(),
            inbound: leads.inbound,
            outbound: leads.outbound,
            complete: !leads.incomplete,
            policies: leads.first.iter().map(one).collect(),
        }
    }
}

impl StateJson {
    /// Of an SA in a list.
    pub(crate) fn of(state: &State<'_>, show_keys: bool) -> Self {
        Self {
            used_by: Some(UsedByJson::from(state.leads)),
            ..Self::alone(state, show_keys)
        }
    }

    /// Of an SA whose policies nobody looked for.
    pub(crate) fn of_event(entry: &SaEntry, host: &Surroundings, show_keys: bool) -> Self {
        let leads = Leads::default();
        let way = SaWay::of(&entry.sa, &host.addresses);
        let state = State {
            entry,
            way,
            leads: &leads,
            host,
        };
        Self::alone(&state, show_keys)
    }

    /// Of an SA at its limit, of which the kernel tells no algorithms: a larval one with an SPI
    /// looks like any other.
    pub(crate) fn of_expire(entry: &SaEntry, host: &Surroundings) -> Self {
        Self {
            larval: entry.sa.spi.is_none(),
            ..Self::of_event(entry, host, false)
        }
    }

    fn alone(state: &State<'_>, show_keys: bool) -> Self {
        let (entry, sa, host) = (state.entry, &state.entry.sa, state.host);
        let (direction, told) = match state.way {
            SaWay::In(told) => (Some("in"), Some(told)),
            SaWay::Out(told) => (Some("out"), Some(told)),
            SaWay::Unknown => (None, None),
        };
        let protection = Protections::of(&sa.protection, show_keys);
        let sequences = state.sequences();
        let sequence = |s: Sequence| SequenceJson {
            last: s.last,
            left: s.left,
        };
        let bitmap = entry.replay.iter().flat_map(|replay| &replay.bitmap);
        Self {
            source: sa.source,
            destination: sa.destination,
            protocol: json::protocol(sa.protocol),
            spi: sa.spi.map(|spi| spi.to_string()),
            reqid: sa.reqid.0,
            owner: ours(sa.reqid).then_some("epochgate"),
            mode: sa.mode.to_string(),
            direction,
            direction_from: told.map(|told| match told {
                Told::Kernel => "kernel",
                Told::Addresses => "addresses",
                Told::Policies => "policies",
            }),
            larval: state.is_larval(),
            algorithms: (sa.protection != Protection::Larval)
                .then(|| words::algorithms(&sa.protection)),
            aead: protection.aead,
            encryption: protection.encryption,
            integrity: protection.integrity,
            compression: protection.compression,
            encapsulation: sa.encap.as_ref().map(encap),
            selector: sa.selector.as_ref().map(SelectorJson::from),
            mark: sa.mark.map(MarkJson::from),
            output_mark: sa.output_mark.map(MarkJson::from),
            if_id: sa.if_id.map(|id| id.get()),
            interface: sa
                .if_id
                .and_then(|id| host.xfrm_interfaces.get(&id.get()).cloned()),
            replay: ReplayJson {
                window: sa.replay_window.packets,
                extended: sa.replay_window.extended,
                outbound: sequences.map(|(outbound, _)| sequence(outbound)),
                inbound: sequences.map(|(_, inbound)| sequence(inbound)),
                bitmap: bitmap.map(|word| format!("{word:#010x}")).collect(),
            },
            limits: LimitsJson::of(&sa.limits, &entry.usage, host.now),
            usage: UsageJson::of(&entry.usage, entry.last_used, host),
            refused: FaultsJson {
                outside_window: entry.faults.outside_window,
                replayed: entry.faults.replayed,
                integrity: entry.faults.integrity,
            },
            flags: flag_names(sa.flags, sa.extra_flags),
            offload: sa.offload.map(|offload| OffloadJson::of(offload, host)),
            cpu: sa.cpu,
            nat_keepalive_interval_seconds: sa.nat_keepalive_interval_seconds,
            security_context: sa.security_context.as_ref().map(SecurityJson::from),
            iptfs: sa.iptfs.as_ref().map(IptfsJson::from),
            care_of: sa.care_of,
            tfc_padding: sa.tfc_padding,
            mapping_interval_seconds: sa.mapping_interval_seconds,
            replay_threshold: sa.replay_threshold,
            timer_threshold: sa.timer_threshold,
            acquire_sequence: entry.acquire_sequence,
            attributes: json::raw(&sa.other),
            used_by: None,
        }
    }
}

fn encap(encap: &Encap) -> EncapJson {
    EncapJson {
        kind: match encap.kind {
            EncapKind::EspInUdp => "udp".to_owned(),
            EncapKind::EspInTcp => "tcp".to_owned(),
            EncapKind::Other(number) => number.to_string(),
        },
        source_port: encap.source_port,
        destination_port: encap.destination_port,
        original_address: encap.original_address,
    }
}

#[derive(Default)]
struct Protections {
    aead: Option<AlgorithmJson>,
    encryption: Option<AlgorithmJson>,
    integrity: Option<AlgorithmJson>,
    compression: Option<AlgorithmJson>,
}

impl Protections {
    fn of(protection: &Protection, show_keys: bool) -> Self {
        let shown = |key: &Key| show_keys.then(|| words::hex(key.expose()));
        let aead = |a: &Aead| AlgorithmJson {
            name: a.name.clone(),
            key_bits: a.key.bits(),
            icv_bits: Some(a.icv_bits),
            key: shown(&a.key),
        };
        let cipher = |c: &Cipher| AlgorithmJson {
            name: c.name.clone(),
            key_bits: c.key.bits(),
            icv_bits: None,
            key: shown(&c.key),
        };
        let integrity_of = |i: &Integrity| AlgorithmJson {
            name: i.name.clone(),
            key_bits: i.key.bits(),
            icv_bits: i.truncation_bits,
            key: shown(&i.key),
        };
        let mut found = Self::default();
        match protection {
            Protection::Larval => {}
            Protection::Aead(algorithm) => found.aead = Some(aead(algorithm)),
            Protection::Encryption {
                cipher: algorithm,
                integrity,
            } => {
                found.encryption = Some(cipher(algorithm));
                found.integrity = integrity.as_ref().map(integrity_of);
            }
            Protection::Integrity(algorithm) => found.integrity = Some(integrity_of(algorithm)),
            Protection::Compression(algorithm) => {
                found.compression = Some(AlgorithmJson {
                    name: algorithm.name.clone(),
                    key_bits: 0,
                    icv_bits: None,
                    key: None,
                });
            }
        }
        found
    }
}
