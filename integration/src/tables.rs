//! What is in a host's SAD and SPD, as `ip xfrm` shows it, and a tunnel of somebody else in them.

use crate::net::Host;
use crate::topology::{CLIENT, SERVER, Topology};
use crate::traffic::UdpFlow;
use std::ops::RangeInclusive;

/// The reqids of epochgate's SAs and of the templates of its policies.
pub const REQIDS: RangeInclusive<u32> = 0x4547_0000..=0x4547_ffff;

/// An entry of the SAD or SPD: the lines that `ip xfrm` shows of it, without leading blanks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block(pub String);

impl Block {
    /// The reqid of the SA, or of the policy's template, if it has one.
    pub fn reqid(&self) -> Option<u32> {
        let mut words = self.0.split_whitespace();
        words.find(|word| *word == "reqid")?;
        let number = words.next()?;
        number.split('(').next()?.parse().ok()
    }

    /// Whether it is epochgate's. Exemptions from its policies have no reqid and do not count.
    pub fn is_ours(&self) -> bool {
        self.reqid().is_some_and(|reqid| REQIDS.contains(&reqid))
    }

    /// Without what traffic changes: counters, sequence numbers, times of use.
    fn without_counters(&self) -> Self {
        let lines = self.0.lines().filter(|line| {
            let counter = line.starts_with("anti-replay")
                || line.starts_with("lastused")
                || line.ends_with("(packets)") && !line.starts_with("limit");
            !counter
        });
        let lines = lines.map(|line| {
            let time = line.starts_with("add ").then(|| line.split(" use "));
            time.and_then(|mut parts| parts.next()).unwrap_or(line)
        });
        Self(lines.collect::<Vec<_>>().join("\n"))
    }
}

/// All SAs of a host, larval ones too.
pub fn states(host: &Host) -> Vec<Block> {
    blocks(&host.run("ip -s xfrm state list"))
}

/// All policies of a host but those of single sockets.
pub fn policies(host: &Host) -> Vec<Block> {
    blocks(&host.run("ip -s xfrm policy list nosock"))
}

/// epochgate's SAs on a host. The larval ones, which the kernel makes for each ACQUIRE and removes
/// by itself, have no SPI and do not count.
pub fn our_states(host: &Host) -> Vec<Block> {
    let larval = |block: &Block| block.0.contains("spi 0x00000000(0)");
    let states = states(host).into_iter().filter(Block::is_ours);
    states.filter(|block| !larval(block)).collect()
}

/// epochgate's policies on a host, without exemptions.
pub fn our_policies(host: &Host) -> Vec<Block> {
    policies(host).into_iter().filter(Block::is_ours).collect()
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::<Block>::new();
    for line in text.lines() {
        if line.starts_with(char::is_whitespace) {
            let last = blocks.last_mut().expect("an entry begins at the margin");
            last.0.push('\n');
            last.0.push_str(line.trim());
        } else {
            blocks.push(Block(line.trim().to_owned()));
        }
    }
    blocks
}

/// A tunnel that is not epochgate's: made with `ip xfrm` between the outer addresses of a
/// [`Topology`] without NAT, for networks of its own.
#[derive(Debug)]
pub struct ManualTunnel {
    client: Host,
    server: Host,
}

impl ManualTunnel {
    /// Its SPIs, to the server and to the client.
    pub const SPIS: [u32; 2] = [0x1001, 0x1002];
    /// Its network on the client's side.
    pub const CLIENT_NET: &str = "10.17.0.0/16";
    /// Its network on the server's side.
    pub const SERVER_NET: &str = "10.18.0.0/16";
    const CLIENT_INNER: &str = "10.17.0.1";
    const SERVER_INNER: &str = "10.18.0.1";
    const REQID: u32 = 7;

    /// Makes it at both ends.
    pub fn start(net: &Topology) -> Self {
        let [to_server, to_client] = Self::SPIS;
        let ends = [
            (
                &net.client,
                (CLIENT, SERVER),
                (Self::CLIENT_INNER, Self::CLIENT_NET, Self::SERVER_NET),
            ),
            (
                &net.server,
                (SERVER, CLIENT),
                (Self::SERVER_INNER, Self::SERVER_NET, Self::CLIENT_NET),
            ),
        ];
        let reqid = Self::REQID;
        for (host, (own, peer), (inner, local, remote)) in ends {
            host.dummy("manual", &[&format!("{inner}/16")]);
            let mut batch = String::new();
            for (src, dst, spi) in [(CLIENT, SERVER, to_server), (SERVER, CLIENT, to_client)] {
                batch += &format!(
                    "xfrm state add src {src} dst {dst} proto esp spi {spi:#x} reqid {reqid} \
                     mode tunnel replay-window 32 aead rfc4106(gcm(aes)) 0x{} 128\n",
                    "5a".repeat(20)
                );
            }
            for (dir, from, to, src, dst) in [
                ("out", local, remote, own, peer),
                ("in", remote, local, peer, own),
                ("fwd", remote, local, peer, own),
            ] {
                batch += &format!(
                    "xfrm policy add src {from} dst {to} dir {dir} \
                     tmpl src {src} dst {dst} proto esp reqid {reqid} mode tunnel\n"
                );
            }
            host.ip_batch(&batch);
        }
        Self {
            client: net.client.clone(),
            server: net.server.clone(),
        }
    }

    /// A flow through it, from client to server.
    pub fn flow(&self, port: u16) -> UdpFlow {
        UdpFlow::new(
            (&self.client, Self::CLIENT_INNER),
            (&self.server, Self::SERVER_INNER),
            port,
        )
    }

    /// Its SAs and policies at both ends, with the times at which they were made, without what
    /// its own traffic changes.
    pub fn entries(&self) -> Vec<Block> {
        let hosts = [&self.client, &self.server];
        let all = hosts.map(|host| [states(host), policies(host)].concat());
        let entries = all.into_iter().flatten();
        entries
            .filter(|block| block.reqid() == Some(Self::REQID))
            .map(|block| block.without_counters())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_compared_without_its_counters() {
        let text = "src 192.0.2.2 dst 203.0.113.1\n\
                    \tproto esp spi 0x00001001(4097) reqid 7(0x00000007) mode tunnel\n\
                    \tanti-replay context: seq 0x0, oseq 0x32, bitmap 0x00000000\n\
                    \tlifetime config:\n\
                    \t  limit: soft (INF)(packets), hard (INF)(packets)\n\
                    \tlifetime current:\n\
                    \t  5000(bytes), 50(packets)\n\
                    \t  add 2025-01-01 00:00:00 use 2025-01-01 00:00:01\n";
        let blocks = blocks(text);
        assert_eq!(blocks.len(), 1);
        assert_eq!(blocks[0].reqid(), Some(7));
        assert!(!blocks[0].is_ours());
        let shown = blocks[0].without_counters().0;
        assert!(shown.contains("limit: soft"), "{shown}");
        assert!(shown.ends_with("add 2025-01-01 00:00:00"), "{shown}");
        assert!(
            !shown.contains("5000") && !shown.contains("oseq"),
            "{shown}"
        );
    }
}
