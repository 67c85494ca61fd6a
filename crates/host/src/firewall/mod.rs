//! Firewall rules: what `nft` and `iptables-save` print, read as far as it decides what becomes of a
//! tunnel's packets.
//!
//! Text → [`nft::read`] or [`iptables::read`] → [`BaseChain`]s → [`BaseChain::fate`] (is it dropped?)
//! and [`BaseChain::rewriting`] (is an address changed?). What a reader does not understand is taken
//! as "may match", and the answer says so.

pub mod iptables;
pub mod nft;
mod rules;

use epochgate_controller::config::TunnelConfig;
use ipnet::IpNet;

use self::rules::Chains;
pub use self::rules::{Direction, Fate, Packet, Range, State};

/// What a tunnel protects: source and destination of all pairs of its selectors of one family.
pub fn protected_traffic(tunnel: &TunnelConfig) -> impl Iterator<Item = (IpNet, IpNet)> {
    tunnel.local_traffic.iter().flat_map(move |source| {
        tunnel
            .remote_traffic
            .iter()
            .filter(move |destination| {
                let same_family = source.addr().is_ipv4() == destination.addr().is_ipv4();
                // Masquerading the outer address itself changes nothing.
                let outer = tunnel.local.address.map(IpNet::from) == Some(source.trunc());
                same_family && !outer
            })
            .map(move |destination| (*source, *destination))
    })
}

/// Where in the kernel's stack a base chain is visited (netfilter's hooks).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Everything that comes in, at its interface.
    Ingress,
    /// Everything that comes in.
    Prerouting,
    /// What is for this host.
    Input,
    /// What is for others.
    Forward,
    /// What this host makes.
    Output,
    /// Everything that leaves.
    Postrouting,
    /// Everything that leaves, at its interface.
    Egress,
}

/// Who shows and changes a chain, and how an operator calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tool {
    /// `nft`.
    Nft {
        /// The table's family.
        family: String,
        /// The table.
        table: String,
    },
    /// `iptables` or `ip6tables`.
    Iptables {
        /// The program.
        program: &'static str,
        /// The table.
        table: String,
    },
}

/// A chain that the kernel visits by itself, with the chains of its table.
#[derive(Clone, Debug)]
pub struct BaseChain {
    /// Where.
    pub hook: Hook,
    /// Whether it is asked for the first packet of a connection only, and changes addresses.
    pub nat: bool,
    /// Its place among the chains of one hook, lower ones first.
    pub priority: i64,
    /// What it belongs to.
    pub tool: Tool,
    /// `None`: both families.
    pub ipv6: Option<bool>,
    /// The chain's name.
    pub name: String,
    /// Whether what no rule decides is dropped.
    drops: bool,
    /// The interface of an ingress or egress chain.
    device: Option<String>,
    chains: Chains,
}

impl BaseChain {
    /// What becomes of a packet here.
    #[must_use]
    pub fn fate(&self, packet: &Packet) -> Fate {
        if !self.sees(packet) {
            return Fate::Passes;
        }
        rules::fate(&self.chains, &self.name, packet, || {
            self.drops.then(|| self.policy())
        })
    }

    /// The first rule that may change an address of the packet: the source's behind routing, the
    /// destination's before it.
    #[must_use]
    pub fn rewriting(&self, packet: &Packet) -> Option<String> {
        if !self.nat || !self.sees(packet) {
            return None;
        }
        rules::rewriting(&self.chains, &self.name, packet)
    }

    /// The command that puts a rule in front of all others here. `condition` is written for `nft`
    /// and for `iptables`.
    #[must_use]
    pub fn exemption(&self, nft: &str, iptables: &str) -> String {
        match &self.tool {
            Tool::Nft { family, table } => {
                format!(
                    "nft insert rule {family} {table} {} {nft} accept",
                    self.name
                )
            }
            Tool::Iptables { program, table } => {
                format!("{program} -t {table} -I {} {iptables} -j ACCEPT", self.name)
            }
        }
    }

    /// How to spare protected traffic from a rule that changes source addresses here.
    #[must_use]
    pub fn source_nat_cure(&self) -> &'static str {
        match self.tool {
            Tool::Nft { .. } => "add `rt ipsec missing` to that rule",
            Tool::Iptables { .. } => "add `-m policy --dir out --pol none` to that rule",
        }
    }

    /// The command that puts a rule in front of all others that spares what IPsec protects.
    #[must_use]
    pub fn spared(&self) -> String {
        let (nft, iptables) = ("rt ipsec exists", "-m policy --dir out --pol ipsec");
        format!("or, in front of it: {}", self.exemption(nft, iptables))
    }

    fn policy(&self) -> String {
        match &self.tool {
            Tool::Nft { family, table } => {
                format!("the policy of table {family} {table}, chain {}", self.name)
            }
            Tool::Iptables { program, table } => {
                format!("the policy of {program} -t {table}, chain {}", self.name)
            }
        }
    }

    fn sees(&self, packet: &Packet) -> bool {
        let other_family = self.ipv6.is_some_and(|ipv6| ipv6 != packet.ipv6);
        let interface = match self.hook {
            Hook::Ingress => packet.input.as_deref(),
            Hook::Egress => packet.output.as_deref(),
            Hook::Prerouting | Hook::Input | Hook::Forward | Hook::Output | Hook::Postrouting => {
                None
            }
        };
        let other_device = match (&self.device, interface) {
            (Some(device), Some(interface)) => device != interface,
            _ => false,
        };
        !other_family && !other_device
    }
}
