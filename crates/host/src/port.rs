//! Who has a UDP port, as `/proc` tells (`proc_pid_net(5)`).

use std::fs;

/// The tables of UDP sockets.
const TABLES: [&str; 2] = ["/proc/self/net/udp", "/proc/self/net/udp6"];

/// Name and number of the process that has a UDP socket with this local port in our network
/// namespace; `None` where it can't be found out.
#[must_use]
pub fn holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = TABLES
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| inodes_of(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = process.file_name().into_string() else {
            continue;
        };
        if !pid.bytes().all(|octet| octet.is_ascii_digit()) {
            continue;
        }
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let has_it = descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|target| {
                inodes
                    .iter()
                    .any(|inode| target.as_os_str() == inode.as_str())
            })
        });
        if has_it {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

/// Whether there is a UDP socket with this local port in our network namespace.
#[must_use]
pub fn is_taken(port: u16) -> bool {
    TABLES
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .any(|table| !inodes_of(&table, port).is_empty())
}

/// The inodes of the sockets with this local port, from a table of `/proc/net`.
fn inodes_of(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            let local = columns.nth(1)?;
            let inode = columns.nth(7)?;
            local.ends_with(&suffix).then(|| inode.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_port_is_looked_for_and_not_the_remote_one() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  12: 00000000:01F4 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0
  13: 0100007F:1194 0100007F:01F4 01 00000000:00000000 00:00000000 00000000     0        0 4712 2 0 0
";
        assert_eq!(inodes_of(table, 500), ["4711"]);
        assert_eq!(inodes_of(table, 4500), ["4712"]);
        assert!(inodes_of("", 500).is_empty());
    }
}
