//! The epochgate command line.
fn main() {}
