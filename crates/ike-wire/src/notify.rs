//! Notifications: errors, and statuses that announce or ask for something (RFC 7296 §3.10).

use core::fmt;

use crate::code_point::{Octets, code_points};
use crate::error::{DecodeError, EncodeError};
use crate::proposal::Protocol;
use crate::reader::Reader;
use crate::transform::KeyExchangeMethod;
use crate::writer::octet_length;

code_points! {
    /// What is notified (IANA: IKEv2 Notify Message Types).
    pub struct NotifyType(u16) {
        /// A payload with the critical bit is not known; data: its type (RFC 7296 §2.5).
        UNSUPPORTED_CRITICAL_PAYLOAD = 1;
        /// No IKE SA with these SPIs (RFC 7296 §2.21).
        INVALID_IKE_SPI = 4;
        /// The major version is not spoken (RFC 7296 §2.5).
        INVALID_MAJOR_VERSION = 5;
        /// A field is malformed; fatal to the IKE SA (RFC 7296 §2.21).
        INVALID_SYNTAX = 7;
        /// A message ID outside the window (RFC 7296 §2.3); data: that ID.
        INVALID_MESSAGE_ID = 9;
        /// An ESP or AH packet with an unknown SPI came (RFC 7296 §1.5); data: the SPI.
        INVALID_SPI = 11;
        /// None of the proposals is acceptable (RFC 7296 §2.7).
        NO_PROPOSAL_CHOSEN = 14;
        /// The KE payload is of another group than the one chosen; data: that group
        /// (RFC 7296 §1.2).
        INVALID_KE_PAYLOAD = 17;
        /// The peer is not who it says it is, or may not (RFC 7296 §2.21.2).
        AUTHENTICATION_FAILED = 24;
        /// Only selectors of one address pair are acceptable (RFC 7296 §2.9).
        SINGLE_PAIR_REQUIRED = 34;
        /// No further Child SA on this IKE SA (RFC 7296 §1.3).
        NO_ADDITIONAL_SAS = 35;
        /// No address can be assigned (RFC 7296 §3.15.4).
        INTERNAL_ADDRESS_FAILURE = 36;
        /// The peer must ask for configuration and has not (RFC 7296 §2.19).
        FAILED_CP_REQUIRED = 37;
        /// None of the traffic selectors is acceptable (RFC 7296 §2.9).
        TS_UNACCEPTABLE = 38;
        /// A packet came whose selectors are not its SA's (RFC 7296 §3.10.1).
        INVALID_SELECTORS = 39;
        /// An address cannot be used (RFC 4555 §3.5).
        UNACCEPTABLE_ADDRESSES = 40;
        /// There is a NAT though NO_NATS_ALLOWED was sent (RFC 4555 §3.9).
        UNEXPECTED_NAT_DETECTED = 41;
        /// Use the assigned home address (RFC 5026).
        USE_ASSIGNED_HOA = 42;
        /// Try again later: another exchange is under way (RFC 7296 §2.25).
        TEMPORARY_FAILURE = 43;
        /// The Child SA to be rekeyed does not exist (RFC 7296 §2.25).
        CHILD_SA_NOT_FOUND = 44;
        /// The group is not known (G-IKEv2).
        INVALID_GROUP_ID = 45;
        /// The peer may not join the group (G-IKEv2).
        AUTHORIZATION_FAILED = 46;
        /// The state for a following key exchange is gone (RFC 9370 §2.2.4).
        STATE_NOT_FOUND = 47;

        /// This is the only IKE SA between the identities (RFC 7296 §2.4).
        INITIAL_CONTACT = 16384;
        /// How many requests may be under way; data: four octets (RFC 7296 §2.3).
        SET_WINDOW_SIZE = 16385;
        /// Narrowed selectors of another SA would be acceptable too (RFC 7296 §2.9).
        ADDITIONAL_TS_POSSIBLE = 16386;
        /// IPComp may be used (RFC 7296 §2.22).
        IPCOMP_SUPPORTED = 16387;
        /// Hash of the sender's address and port (RFC 7296 §2.23).
        NAT_DETECTION_SOURCE_IP = 16388;
        /// Hash of the receiver's address and port (RFC 7296 §2.23).
        NAT_DETECTION_DESTINATION_IP = 16389;
        /// Repeat the request with this in front (RFC 7296 §2.6).
        COOKIE = 16390;
        /// The Child SA is to be in transport mode (RFC 7296 §1.3.1).
        USE_TRANSPORT_MODE = 16391;
        /// Certificates may be given by URL (RFC 7296 §3.6).
        HTTP_CERT_LOOKUP_SUPPORTED = 16392;
        /// The Child SA with this SPI is to be rekeyed (RFC 7296 §1.3.3).
        REKEY_SA = 16393;
        /// ESP TFC padding is not understood (RFC 7296 §1.3.1).
        ESP_TFC_PADDING_NOT_SUPPORTED = 16394;
        /// Non-first fragments go through this SA too (RFC 7296 §1.3.1).
        NON_FIRST_FRAGMENTS_ALSO = 16395;
        /// MOBIKE is spoken (RFC 4555).
        MOBIKE_SUPPORTED = 16396;
        /// Another IPv4 address of the sender (RFC 4555).
        ADDITIONAL_IP4_ADDRESS = 16397;
        /// Another IPv6 address of the sender (RFC 4555).
        ADDITIONAL_IP6_ADDRESS = 16398;
        /// The sender has no further addresses (RFC 4555).
        NO_ADDITIONAL_ADDRESSES = 16399;
        /// Move the SAs to the addresses of this message (RFC 4555).
        UPDATE_SA_ADDRESSES = 16400;
        /// To be returned: shows that the path works (RFC 4555).
        COOKIE2 = 16401;
        /// The addresses as the sender sees them; no NAT may be between (RFC 4555).
        NO_NATS_ALLOWED = 16402;
        /// When to authenticate again, in seconds (RFC 4478).
        AUTH_LIFETIME = 16403;
        /// Several authentications are understood (RFC 4739).
        MULTIPLE_AUTH_SUPPORTED = 16404;
        /// Another authentication follows (RFC 4739).
        ANOTHER_AUTH_FOLLOWS = 16405;
        /// Redirection is understood (RFC 5685).
        REDIRECT_SUPPORTED = 16406;
        /// Go to another gateway (RFC 5685).
        REDIRECT = 16407;
        /// The gateway that redirected here (RFC 5685).
        REDIRECTED_FROM = 16408;
        /// A session ticket and its lifetime (RFC 5723).
        TICKET_LT_OPAQUE = 16409;
        /// Asks for a session ticket (RFC 5723).
        TICKET_REQUEST = 16410;
        /// A ticket will follow (RFC 5723).
        TICKET_ACK = 16411;
        /// No ticket, or not this one (RFC 5723).
        TICKET_NACK = 16412;
        /// A session ticket presented (RFC 5723).
        TICKET_OPAQUE = 16413;
        /// Link identifier (RFC 5739).
        LINK_ID = 16414;
        /// Wrapped ESP (RFC 5840).
        USE_WESP_MODE = 16415;
        /// Header compression (RFC 5857).
        ROHC_SUPPORTED = 16416;
        /// EAP alone authenticates the responder (RFC 5998).
        EAP_ONLY_AUTHENTICATION = 16417;
        /// An IKE SA without Child SA is understood (RFC 6023).
        CHILDLESS_IKEV2_SUPPORTED = 16418;
        /// Token for quick crash detection (RFC 6290).
        QUICK_CRASH_DETECTION = 16419;
        /// Message ID synchronisation is understood (RFC 6311).
        IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420;
        /// Replay counter synchronisation is understood (RFC 6311).
        IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED = 16421;
        /// Message IDs after a failover (RFC 6311).
        IKEV2_MESSAGE_ID_SYNC = 16422;
        /// Replay counters after a failover (RFC 6311).
        IPSEC_REPLAY_COUNTER_SYNC = 16423;
        /// Password authentication methods (RFC 6467).
        SECURE_PASSWORD_METHODS = 16424;
        /// Fragmentation is understood (RFC 7383).
        IKEV2_FRAGMENTATION_SUPPORTED = 16430;
        /// Hash algorithms for digital signatures; data: 16-bit numbers (RFC 7427).
        SIGNATURE_HASH_ALGORITHMS = 16431;
        /// Cloning of IKE SAs is understood (RFC 7791).
        CLONE_IKE_SA_SUPPORTED = 16432;
        /// Clone this IKE SA (RFC 7791).
        CLONE_IKE_SA = 16433;
        /// A puzzle to be solved first (RFC 8019).
        PUZZLE = 16434;
        /// Postquantum preshared keys are understood (RFC 8784).
        USE_PPK = 16435;
        /// Which postquantum preshared key is used (RFC 8784).
        PPK_IDENTITY = 16436;
        /// AUTH for the case that the PPK is not known (RFC 8784).
        NO_PPK_AUTH = 16437;
        /// IKE_INTERMEDIATE is understood (RFC 9242).
        INTERMEDIATE_EXCHANGE_SUPPORTED = 16438;
        /// IPv4 is assigned (RFC 8983).
        IP4_ALLOWED = 16439;
        /// IPv6 is assigned (RFC 8983).
        IP6_ALLOWED = 16440;
        /// Links the exchanges of one multiple key exchange (RFC 9370).
        ADDITIONAL_KEY_EXCHANGE = 16441;
        /// IP-TFS (RFC 9347).
        USE_AGGFRAG = 16442;
    }
}

impl NotifyType {
    /// First of the status types for private use, up to 65535 (RFC 7296 §3.10.1).
    pub const FIRST_PRIVATE_STATUS: u16 = 40960;

    /// First of the status types; what is below are errors.
    const FIRST_STATUS: u16 = 16384;

    /// Whether it reports that something went wrong: an unknown error makes the whole request
    /// fail, an unknown status is ignored (RFC 7296 §3.10.1).
    pub const fn is_error(self) -> bool {
        self.0 < Self::FIRST_STATUS
    }
}

/// One notification.
#[derive(Clone, PartialEq, Eq)]
pub struct Notify {
    /// Protocol of the Child SA that it is about; `None` (0 on the wire) if it is about none.
    pub protocol: Option<Protocol>,
    /// SPI of the Child SA that it is about, in REKEY_SA and CHILD_SA_NOT_FOUND; empty otherwise.
    pub spi: Vec<u8>,
    /// What is notified.
    pub kind: NotifyType,
    /// What its type defines.
    pub data: Vec<u8>,
}

impl Notify {
    /// A notification about no SA, or about the IKE SA that carries it.
    pub fn new(kind: NotifyType, data: impl Into<Vec<u8>>) -> Self {
        Self {
            protocol: None,
            spi: Vec::new(),
            kind,
            data: data.into(),
        }
    }

    /// A notification without data about the Child SA with this SPI.
    pub fn about_child(kind: NotifyType, protocol: Protocol, spi: u32) -> Self {
        let spi = spi.to_be_bytes().to_vec();
        Self {
            protocol: Some(protocol),
            spi,
            kind,
            data: Vec::new(),
        }
    }

    /// The SPI of the Child SA that it is about, if there are four octets of it.
    pub fn child_spi(&self) -> Option<u32> {
        self.spi.as_slice().try_into().ok().map(u32::from_be_bytes)
    }

    /// The key exchange method that an INVALID_KE_PAYLOAD asks for (RFC 7296 §1.2).
    pub fn wanted_key_exchange(&self) -> Option<KeyExchangeMethod> {
        if self.kind != NotifyType::INVALID_KE_PAYLOAD {
            return None;
        }
        let octets = self.data.as_slice().try_into().ok()?;
        Some(KeyExchangeMethod(u16::from_be_bytes(octets)))
    }

    pub(crate) fn read(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let protocol = match body.u8()? {
            0 => None,
            other => Some(Protocol::from(other)),
        };
        let spi_len = usize::from(body.u8()?);
        let kind = NotifyType(body.u16()?);
        let spi = body.take(spi_len)?.to_vec();
        Ok(Self {
            protocol,
            spi,
            kind,
            data: body.take_rest().to_vec(),
        })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend([
            self.protocol.map_or(0, u8::from),
            octet_length("SPI", &self.spi)?,
        ]);
        out.extend(self.kind.0.to_be_bytes());
        out.extend(&self.spi);
        out.extend(&self.data);
        Ok(())
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notify({}", self.kind)?;
        if let Some(protocol) = self.protocol {
            write!(f, ", {protocol}")?;
        }
        if let Some(spi) = self.child_spi() {
            write!(f, ", spi {spi:08x}")?;
        }
        if !self.data.is_empty() {
            write!(f, ", {:?}", Octets(&self.data))?;
        }
        f.write_str(")")
    }
}
