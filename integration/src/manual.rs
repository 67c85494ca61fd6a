//! The configurations that `docs/strongswan.md` shows, as tests use them: a reader who copies
//! them has what was tested.
//!
//! A sample is a fenced block whose info string names it behind the language.

use crate::net::Host;
use crate::peer::{Epochgate, StrongSwan};
use crate::topology::Topology;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

const STRONGSWAN_MD: &str = include_str!("../../docs/strongswan.md");

/// The key that the samples' `secret` is.
const SECRET: &str = "what branch.psk contains";

/// How long policies may take into the kernel of a slow guest.
const HOLD_LIMIT: Duration = Duration::from_secs(10);

/// The sample of this name, such as `swanctl-server`.
#[track_caller]
pub fn sample(name: &str) -> String {
    let mut lines = STRONGSWAN_MD.lines();
    let begins = |line: &str| line.starts_with("```") && line.split(' ').nth(1) == Some(name);
    assert!(
        lines.any(begins),
        "docs/strongswan.md has no sample called {name}"
    );
    let lines = lines.take_while(|line| *line != "```");
    lines.map(|line| format!("{line}\n")).collect()
}

/// A sample with one thing written otherwise.
#[track_caller]
pub fn changed(sample: &str, from: &str, to: &str) -> String {
    assert_eq!(sample.matches(from).count(), 1, "{from} in {sample}");
    sample.replace(from, to)
}

/// Writes a pre-shared key into a file of this name beside the host's configuration.
#[track_caller]
pub fn write_psk(host: &Host, name: &str, secret: &str) {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(host.folder().join(name)).expect("its folder");
    file.write_all(secret.as_bytes()).expect("its folder");
}

impl Topology {
    /// epochgate is the client, strongSwan the server, both as documented.
    #[track_caller]
    pub fn with_strongswan_server(&self) -> (Epochgate, StrongSwan) {
        let server = StrongSwan::start(&self.server, &sample("swanctl-server"));
        (self.documented_client(&sample("epochgate-client")), server)
    }

    /// strongSwan is the client, epochgate the server, both as documented.
    #[track_caller]
    pub fn with_strongswan_client(&self) -> (StrongSwan, Epochgate) {
        let server = self.documented_server(&sample("epochgate-server"));
        let client = StrongSwan::start(&self.client, &sample("swanctl-client"));
        (client, server)
    }

    /// Starts epochgate on the client, with the key that the samples name. Its tunnels hold when
    /// this returns.
    #[track_caller]
    pub fn documented_client(&self, config: &str) -> Epochgate {
        documented(&self.client, config)
    }

    /// The same on the server.
    #[track_caller]
    pub fn documented_server(&self, config: &str) -> Epochgate {
        documented(&self.server, config)
    }
}

#[track_caller]
fn documented(host: &Host, config: &str) -> Epochgate {
    write_psk(host, "branch.psk", SECRET);
    let daemon = Epochgate::start(host, config);
    let status = daemon.status();
    for tunnel in status["tunnels"].as_array().expect("tunnels") {
        let name = tunnel["name"].as_str().expect("a name");
        daemon.wait_for(name, HOLD_LIMIT, |tunnel| tunnel["gate"] != "down");
    }
    daemon
}
