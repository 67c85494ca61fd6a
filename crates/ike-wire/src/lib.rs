//! Bytes to IKEv2 messages and back (RFC 7296 §3): no state, no keys.
