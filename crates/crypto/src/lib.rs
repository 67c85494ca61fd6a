//! The controller's cryptography, done by ring.
