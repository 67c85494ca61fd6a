//! Source NAT rules that would rewrite protected traffic, found at start and at each reload.
//!
//! A masquerade rule on a gateway that also matches a tunnel's traffic changes its source address;
//! the packet then meets no policy and leaves in clear. No key daemon can prevent that, so it is
//! said loudly, with the rule and its cure. The rules are read with `nft` and `iptables-save` where
//! these are installed; without them nothing is known and nothing is said.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use epochgate_controller::config::{Config, TunnelName};
use epochgate_host::firewall::{BaseChain, Hook, Packet, iptables, nft, protected_traffic};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// Time that each program gets.
const PROGRAM_TIME: Duration = Duration::from_secs(5);
/// Octets of output that are read; a longer ruleset is not examined.
const OUTPUT_OCTETS_MAX: u64 = 32 << 20;

/// Something that an operator must mend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Whose traffic is in danger.
    pub tunnel: TunnelName,
    /// The rule, and what to do.
    pub text: String,
}

/// Examines the host's rules for all tunnels.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let mut chains = Vec::new();
    if let Some(json) = output_of("nft", &["--json", "list", "ruleset"]).await {
        match nft::read(&json) {
            Ok(found) => chains.extend(found.chains),
            Err(error) => tracing::debug!("cannot read the ruleset of nft: {error}"),
        }
    }
    for (program, ipv6) in [
        ("iptables-save", false),
        ("iptables-legacy-save", false),
        ("ip6tables-save", true),
        ("ip6tables-legacy-save", true),
    ] {
        if let Some(text) = output_of(program, &["-t", "nat"]).await {
            chains.extend(iptables::read(&String::from_utf8_lossy(&text), ipv6));
        }
    }
    findings(config, &chains)
}

fn findings(config: &Config, chains: &[BaseChain]) -> Vec<Finding> {
    let mut findings = BTreeSet::new();
    for tunnel in &config.tunnels {
        for (source, destination) in protected_traffic(tunnel) {
            let traffic = Packet {
                to_protect: Some(true),
                ..Packet::between(source, destination)
            };
            for chain in chains {
                if chain.hook != Hook::Postrouting {
                    continue;
                }
                if let Some(rule) = chain.rewriting(&traffic) {
                    findings.insert(Finding {
                        tunnel: tunnel.name.clone(),
                        text: format!(
                            "a source NAT rule may rewrite traffic from {source} to {destination} \
                             so that it leaves in clear ({rule}); {}",
                            chain.source_nat_cure()
                        ),
                    });
                }
            }
        }
    }
    findings.into_iter().collect()
}

/// What a program prints; `None` when it is not installed, fails, or takes too long.
async fn output_of(program: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let mut output = Vec::new();
    let read = async {
        let mut stdout = child.stdout.take()?.take(OUTPUT_OCTETS_MAX);
        stdout.read_to_end(&mut output).await.ok()?;
        child.wait().await.ok().filter(|status| status.success())
    };
    match tokio::time::timeout(PROGRAM_TIME, read).await {
        Ok(status) => status.map(|_| output),
        Err(_) => {
            tracing::warn!("{program} did not end in time; source NAT rules were not examined");
            None
        }
    }
}
