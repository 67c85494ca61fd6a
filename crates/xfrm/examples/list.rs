//! Lists every SA with the policies that lead to it, and what has no partner: `ip xfrm state` and
//! `ip xfrm policy` in one, whoever made them.
//!
//! ```text
//! cargo run --example list
//! ```
//!
//! Needs CAP_NET_ADMIN.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use epochgate_xfrm::{PolicyEntry, Reqid, Sa, SaFilter, Socket, Template};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut socket = Socket::open()?;

    // Policies are kept by the reqid of their templates; SAs are looked at one by one.
    let mut policies: HashMap<Reqid, Vec<PolicyEntry>> = HashMap::new();
    let end = socket.for_each_policy(|entry| {
        for template in &entry.policy.templates {
            let same_reqid = policies.entry(template.reqid).or_default();
            same_reqid.push(entry.clone());
        }
        ControlFlow::Continue(())
    })?;
    let mut changed = end.changed;

    let mut served = HashSet::new();
    let end = socket.for_each_sa(&SaFilter::ALL, |entry| {
        let (sa, usage) = (&entry.sa, &entry.usage);
        let (from, to, mode) = (sa.source, sa.destination, sa.mode);
        let spi = sa
            .spi
            .map_or_else(|| "larval".to_owned(), |spi| spi.to_string());
        println!(
            "{} {spi} {from} -> {to} {mode}, {} packets, {} bytes",
            sa.protocol, usage.packets, usage.bytes
        );
        let leading: Vec<&PolicyEntry> = policies
            .get(&sa.reqid)
            .into_iter()
            .flatten()
            .filter(|entry| entry.policy.templates.iter().any(|it| serves(sa, it)))
            .collect();
        for entry in &leading {
            println!("  {} {}", entry.policy.direction, entry.policy.selector);
            served.insert(entry.policy.index);
        }
        if leading.is_empty() {
            println!("  no policy leads to it");
        }
        ControlFlow::Continue(())
    })?;
    changed |= end.changed;

    for entry in policies.values().flatten() {
        if !served.contains(&entry.policy.index) {
            let policy = &entry.policy;
            println!("{} {}: no SA", policy.direction, policy.selector);
        }
    }
    if end.unreadable > 0 {
        eprintln!("{} SAs could not be read", end.unreadable);
    }
    if changed {
        eprintln!("the tables changed meanwhile: entries may be missing");
    }
    Ok(())
}

/// Whether the kernel would take an SA for a template (`xfrm_state_look_at`): in transport mode a
/// template has no addresses of its own.
fn serves(sa: &Sa, template: &Template) -> bool {
    let is_of = |wanted: std::net::IpAddr, had| wanted.is_unspecified() || wanted == had;
    sa.reqid == template.reqid
        && sa.protocol == template.protocol
        && sa.mode == template.mode
        && template.spi.is_none_or(|spi| sa.spi == Some(spi))
        && is_of(template.source, sa.source)
        && is_of(template.destination, sa.destination)
}
