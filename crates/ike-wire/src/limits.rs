//! How much of anything one message may carry. They bound the work and memory that a peer can ask
//! for with one datagram; decoding and encoding refuse the same.

/// Octets of the fixed IKE header (RFC 7296 §3.1).
pub const HEADER_LEN: usize = 28;

/// Octets of the generic payload header (RFC 7296 §3.2).
pub const PAYLOAD_HEADER_LEN: usize = 4;

/// Octets of one message: what fits into one UDP datagram over IPv4 (65535 - 20 - 8).
pub const MAX_MESSAGE_LEN: usize = 65_507;

/// Payloads in one message or one decrypted chain. The longest honest chains are those of an
/// IKE_AUTH with certificates and of MOBIKE's list of additional addresses.
pub const MAX_PAYLOADS: usize = 128;

/// Proposals in one Security Association payload (their number is an octet on the wire).
pub const MAX_PROPOSALS: usize = 64;

/// Transforms in one proposal (their count is an octet on the wire).
pub const MAX_TRANSFORMS: usize = 128;

/// Selectors in one Traffic Selector payload (their count is an octet on the wire).
pub const MAX_TRAFFIC_SELECTORS: usize = 128;

/// SPIs in one Delete payload (their count is 16 bits on the wire).
pub const MAX_SPIS_IN_DELETE: usize = 256;

/// Attributes in one Configuration payload.
pub const MAX_CONFIGURATION_ATTRIBUTES: usize = 128;

/// Shortest nonce, in octets (RFC 7296 §3.9).
pub const MIN_NONCE_LEN: usize = 16;

/// Longest nonce, in octets (RFC 7296 §3.9).
pub const MAX_NONCE_LEN: usize = 256;
