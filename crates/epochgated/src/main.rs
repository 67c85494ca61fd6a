//! The epochgate daemon.
fn main() {}
