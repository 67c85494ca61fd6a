//! What the gate is worth: tunnels with and without it, under the same faults.
