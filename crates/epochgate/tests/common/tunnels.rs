//! Tunnels as the daemon reports them, for the tests of what is shown of them.

use epochgate_controller::status::{GateStatus, HELD_PACKETS_MAX, RecentPings, TunnelStatus};

/// A tunnel that is down.
pub(crate) fn down() -> TunnelStatus {
    TunnelStatus {
        name: "branch".into(),
        role: "client".into(),
        gate: GateStatus::Down,
        reason: "down: run `epochgate up branch`".into(),
        ladder: "idle".into(),
        recovery_bound_ms: 9_562,
        open_epoch: None,
        local_traffic: vec!["10.1.0.0/16".into()],
        remote_traffic: vec!["10.2.0.0/16".into()],
        refused_traffic: vec![],
        virtual_addresses: Vec::new(),
        dns: Vec::new(),
        dns_domains: Vec::new(),
        ike: vec![],
        epochs: vec![],
        ping_target: None,
        last_round_trip_us: None,
        last_proof_ms: None,
        held_ms: None,
        pings_sent: 0,
        pings_answered: 0,
        switches: 0,
        held_packets_max: HELD_PACKETS_MAX,
        last_error: None,
        attempt: None,
        attempts: None,
        next_step_ms: None,
        failures: 0,
        peer: None,
        recent_pings: RecentPings::default(),
        next_ping_ms: None,
        last_proof_by: None,
        waiting_ms: None,
        released: None,
        pings_lost: 0,
        rekeys: 0,
        recoveries: 0,
        last_failure: None,
    }
}

/// The same tunnel, held.
pub(crate) fn held(reason: &str) -> TunnelStatus {
    TunnelStatus {
        gate: GateStatus::Held,
        reason: reason.into(),
        held_ms: Some(12_345),
        ..down()
    }
}
