//! A seeded world for the controller: network, kernel model, invariants.
