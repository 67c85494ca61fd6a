//! What `/proc` tells: settings, processes, capabilities, ports, and how the kernel was built.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use epochgate_host::port;

use super::program::{Ran, run};
use crate::doctor::facts::{Build, PortHolder, Process, Settings};

/// Octets of a file of `/proc` or of a kernel's configuration at most.
const FILE_OCTETS_MAX: u64 = 4 << 20;
/// Interfaces whose settings are read at most.
const INTERFACES_MAX: usize = 1024;
/// Processes that are looked at at most: what Linux allows by default, and more.
const PROCESSES_MAX: usize = 1 << 20;

/// Settings of the whole namespace.
const SETTINGS: [&str; 11] = [
    "net.core.xfrm_larval_drop",
    "net.core.xfrm_acq_expires",
    "net.ipv4.ip_forward",
    "net.ipv4.icmp_echo_ignore_all",
    "net.ipv4.ip_no_pmtu_disc",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.icmp.echo_ignore_all",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
    "kernel.osrelease",
];
/// Settings of each interface, and of `all` and `default`.
const OF_INTERFACES: [(&str, &[&str]); 2] = [
    (
        "ipv4",
        &[
            "rp_filter",
            "disable_xfrm",
            "disable_policy",
            "send_redirects",
        ],
    ),
    ("ipv6", &["disable_policy", "disable_ipv6"]),
];

/// Options of the kernel that matter.
pub(crate) const OPTIONS: [&str; 8] = [
    "XFRM_USER",
    "INET_ESP",
    "INET6_ESP",
    "XFRM_INTERFACE",
    "XFRM_STATISTICS",
    "CRYPTO_GCM",
    "CRYPTO_CHACHA20POLY1305",
    "CRYPTO_CBC",
];

/// Names of programs that negotiate IPsec SAs, as `/proc/PID/comm` has them (15 octets at most).
const KEY_DAEMONS: [&str; 11] = [
    "charon",
    "charon-systemd",
    "charon-nm",
    "charon-cmd",
    "starter",
    "pluto",
    "racoon",
    "racoon2-iked",
    "iked",
    "isakmpd",
    "epochgated",
];

/// A file's text up to `most` octets.
pub(super) fn read_text(path: impl AsRef<Path>, most: u64) -> io::Result<String> {
    let mut octets = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut octets)?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

fn word(path: impl AsRef<Path>) -> Option<String> {
    let text = read_text(path, FILE_OCTETS_MAX).ok()?;
    Some(text.trim().to_owned())
}

/// The settings of the network namespace of this process.
pub(super) fn settings() -> Settings {
    let root = Path::new("/proc/sys");
    let mut found = BTreeMap::new();
    for key in SETTINGS {
        if let Some(value) = word(root.join(key.replace('.', "/"))) {
            found.insert(key.to_owned(), value);
        }
    }
    for (family, keys) in OF_INTERFACES {
        let Ok(interfaces) = fs::read_dir(root.join("net").join(family).join("conf")) else {
            continue;
        };
        for interface in interfaces.flatten().take(INTERFACES_MAX) {
            let Ok(name) = interface.file_name().into_string() else {
                continue;
            };
            for key in keys {
                if let Some(value) = word(interface.path().join(key)) {
                    found.insert(format!("net.{family}.conf.{name}.{key}"), value);
                }
            }
        }
    }
    Settings(found)
}

/// Who has IKE's ports.
pub(super) fn ports(ports: &[u16]) -> Vec<PortHolder> {
    ports
        .iter()
        .filter(|port| port::is_taken(**port))
        .map(|port| PortHolder {
            port: *port,
            holder: port::holder(*port),
        })
        .collect()
}

/// Effective capabilities of a process, by its number or `self`.
pub(super) fn capabilities(pid: &str) -> Option<u64> {
    let status = read_text(format!("/proc/{pid}/status"), FILE_OCTETS_MAX).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Key daemons that run in this network namespace, or may.
pub(super) fn key_daemons() -> Vec<Process> {
    let here = fs::read_link("/proc/self/ns/net").ok();
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for process in processes.flatten().take(PROCESSES_MAX) {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Some(name) = word(process.path().join("comm")) else {
            continue;
        };
        if !KEY_DAEMONS.contains(&name.as_str()) {
            continue;
        }
        let namespace = fs::read_link(process.path().join("ns/net")).ok();
        let is_here = namespace.map(|namespace| Some(namespace) == here);
        if is_here == Some(false) {
            continue;
        }
        found.push(Process {
            pid,
            name,
            capabilities: capabilities(&pid.to_string()),
            is_here,
        });
    }
    found.sort_by_key(|process| process.pid);
    found
}

/// How the running kernel was built.
pub(super) fn build(release: &str) -> Build {
    for file in [
        format!("/boot/config-{release}"),
        format!("/lib/modules/{release}/config"),
        format!("/lib/modules/{release}/build/.config"),
    ] {
        if let Ok(text) = read_text(&file, FILE_OCTETS_MAX) {
            return read_build(file, &text);
        }
    }
    let compressed = "/proc/config.gz";
    if Path::new(compressed).exists()
        && let Ran::Said(octets) = run("gzip", &["-cd", compressed])
    {
        return read_build(compressed.to_owned(), &String::from_utf8_lossy(&octets));
    }
    Build::default()
}

fn read_build(source: String, text: &str) -> Build {
    let wanted: BTreeSet<&str> = OPTIONS.into();
    let options = text.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
        let is_built_in = match value.trim() {
            "y" => true,
            "m" => false,
            _ => return None,
        };
        wanted
            .contains(name)
            .then(|| (name.to_owned(), is_built_in))
    });
    Build {
        options: options.collect(),
        source: Some(source),
    }
}

/// The mode of lockdown that is on: the one in brackets.
pub(super) fn lockdown() -> Option<String> {
    let text = word("/sys/kernel/security/lockdown")?;
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

pub(super) fn has_statistics() -> bool {
    Path::new("/proc/self/net/xfrm_stat").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_is_not_set_is_not_there() {
        let text = "CONFIG_XFRM_USER=y\nCONFIG_INET_ESP=m\n# CONFIG_INET6_ESP is not set\n\
                    CONFIG_OTHER=y\nCONFIG_XFRM_STATISTICS=n\n";
        let build = read_build("file".to_owned(), text);
        let expected = [
            ("INET_ESP".to_owned(), false),
            ("XFRM_USER".to_owned(), true),
        ];
        assert_eq!(build.options, expected.into());
    }

    #[test]
    fn this_process_has_capabilities_of_its_own() {
        assert!(capabilities("self").is_some());
        assert_eq!(capabilities("none"), None);
    }
}
