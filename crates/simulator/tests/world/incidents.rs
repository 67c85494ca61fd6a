//! Scenarios that once violated an invariant (`incidents/*.json`, as `epochgate-sim` shrank them):
//! what they showed was mended, and they must stay clean.

use std::fs;
use std::path::Path;

use epochgate_simulator::scenario::{Options, Scenario, run};
use epochgate_simulator::trace::Recording;

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads what was recorded; the simulator itself is given it"
)]
#[test]
fn what_was_mended_stays_mended() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("incidents");
    let mut played = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let scenario: Scenario = serde_json::from_str(&text).unwrap();
        scenario.check().unwrap();
        assert!(!scenario.about.is_empty(), "{}", path.display());
        let recording = Recording::Recent;
        if let Some(violation) = run(&scenario, &Options { recording }).violation {
            panic!("{}: {violation}", path.display());
        }
        played += 1;
    }
    assert!(played > 0);
}
