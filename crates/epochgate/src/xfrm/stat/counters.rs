//! What each counter of `/proc/net/xfrm_stat` means: where the kernel counts it, why that happens
//! most often, and what to do. Read from the source of Linux 6.12 (`xfrm_input.c`, `xfrm_output.c`,
//! `xfrm_policy.c`, `xfrm_interface_core.c`, `espintcp.c`), and of later ones for what they added.

/// What is known of a counter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counter {
    /// Its name in `xfrm_stat`.
    pub(crate) name: &'static str,
    /// What happened to each packet that it counts.
    pub(crate) meaning: &'static str,
    /// The likely cause.
    pub(crate) cause: &'static str,
    /// What to do.
    pub(crate) remedy: &'static str,
}

/// What is known of the counter of this name.
pub(crate) fn known(name: &str) -> Option<&'static Counter> {
    COUNTERS.iter().find(|counter| counter.name == name)
}

/// All counters up to Linux 6.16, in the kernel's order.
pub(crate) static COUNTERS: [Counter; 32] = [
    Counter {
        name: "XfrmInError",
        meaning: "A packet that came in was dropped: the kernel had no memory or no route for it.",
        cause: "The host is short of memory, or a stream of ESP in TCP could not be queued.",
        remedy: "Look at the host's memory (free, dmesg).",
    },
    Counter {
        name: "XfrmInBufferError",
        meaning: "A packet that came in had more layers of IPsec than the kernel takes (6), or met \
            policies with that many templates.",
        cause: "Tunnels inside tunnels, or a network card that reports a failed decryption.",
        remedy: "Nest less. If SAs are offloaded to a card, try without: ethtool -K DEV \
            esp-hw-offload off.",
    },
    Counter {
        name: "XfrmInHdrError",
        meaning: "A packet that came in was too short or garbled to be read.",
        cause: "Truncated or damaged packets, or something else than IPsec on its ports.",
        remedy: "Capture it, and see who sends it: tcpdump -n 'esp or port 4500'.",
    },
    Counter {
        name: "XfrmInNoStates",
        meaning: "An ESP or AH packet came in, and no SA has its destination, SPI, protocol and mark.",
        cause: "The peer uses an SA that this host has deleted or never had: one end was restarted, \
            a rekey was left half done, or a NAT gave us another host's packet. A few after a rekey \
            are normal.",
        remedy: "Compare the SPIs on the wire (tcpdump -n 'esp or port 4500') with those of \
            epochgate xfrm state --dir in. If it goes on, start the tunnel anew on the peer.",
    },
    Counter {
        name: "XfrmInStateProtoError",
        meaning: "An SA could not authenticate or decrypt a packet that came in.",
        cause: "Mostly a failed integrity check: the ends have different keys or algorithms for \
            this SPI, or the packet was changed on its way, or forged.",
        remedy: "epochgate xfrm state shows on which SA the integrity check fails. Rekey that \
            tunnel; if it comes back, look for a middlebox or a card that changes packets.",
    },
    Counter {
        name: "XfrmInStateModeError",
        meaning: "A packet was decrypted, but what is inside does not fit its SA's mode or interface.",
        cause: "One end uses tunnel mode and the other transport mode; or IPv6 came through an SA \
            for IPv4 (or IPv4 through one for IPv6) that lacks the flag af-unspec.",
        remedy: "Compare mode and flags at both ends: epochgate xfrm state --wide.",
    },
    Counter {
        name: "XfrmInStateSeqError",
        meaning: "A packet came twice, or so late that it was behind the replay window.",
        cause: "The network reorders packets by more than the window (several paths, several \
            queues, QoS) or copies them; or somebody replays them.",
        remedy: "epochgate xfrm state shows on which SA. If packets are merely reordered, configure \
            a larger replay window in the key daemon.",
    },
    Counter {
        name: "XfrmInStateExpired",
        meaning: "A packet came in on an SA whose hard limit was reached.",
        cause: "The SA was not replaced in time: its key daemon is down, or its soft and hard \
            limits are too close together.",
        remedy: "Look at LEFT in epochgate xfrm state, and into the key daemon's log.",
    },
    Counter {
        name: "XfrmInStateMismatch",
        meaning: "A packet came in on an SA that is not for it: it was in UDP and the SA is not, or \
            not in UDP and the SA is, or what is inside is outside the SA's selector.",
        cause: "The ends disagree on NAT traversal, or the peer sends what was not agreed on.",
        remedy: "Compare encapsulation and selector (epochgate xfrm state --wide) with the peer's, \
            and negotiate the tunnel anew.",
    },
    Counter {
        name: "XfrmInStateInvalid",
        meaning: "A packet came in on an SA that was being deleted, or had expired.",
        cause: "It was under way when its SA was deleted: a few at each rekey are normal.",
        remedy: "If it grows all the time, the peer goes on using an SA that this end deletes: \
            rekey, and compare the SPIs at both ends.",
    },
    Counter {
        name: "XfrmInTmplMismatch",
        meaning: "A packet met an in or fwd policy that demands IPsec, and had not come through an \
            SA that fits. It was dropped.",
        cause: "Mostly the peer sends in clear what this host wants protected. Or it came through \
            an SA of another reqid, mode or source than the policy's template: two key daemons for \
            the same traffic, or a policy left over.",
        remedy: "Capture to see whether it comes in clear. epochgate xfrm policy --dir in (and \
            --dir fwd) shows which SAs each policy accepts.",
    },
    Counter {
        name: "XfrmInNoPols",
        meaning: "A packet came out of a tunnel, and no in or fwd policy covers it. It was dropped.",
        cause: "There is no policy for this direction (a gateway needs fwd policies too), its \
            selector is narrower than what the peer sends, it was deleted before its SA, or \
            packets without a policy are blocked (ip xfrm policy setdefault).",
        remedy: "epochgate xfrm state marks inbound SAs that no policy leads to. Compare the \
            selectors of epochgate xfrm policy with the addresses inside the tunnel.",
    },
    Counter {
        name: "XfrmInPolBlock",
        meaning: "A packet that came in was dropped by a policy whose action is block.",
        cause: "Somebody has set such a policy.",
        remedy: "epochgate xfrm policy shows it (ACTION block).",
    },
    Counter {
        name: "XfrmInPolError",
        meaning: "The policy for a packet that came in could not be looked up.",
        cause: "A security module (SELinux) refused it, or memory was short.",
        remedy: "Look into the audit log: ausearch -m avc.",
    },
    Counter {
        name: "XfrmOutError",
        meaning: "A packet could not be sent: no memory, no room for headers, no route, or it could \
            not be cut into segments.",
        cause: "The host is short of memory, a route went away meanwhile, or a card's offload fails.",
        remedy: "Look at the host's memory and routes; try without offload: ethtool -K DEV gso off.",
    },
    Counter {
        name: "XfrmOutBundleGenError",
        meaning: "There are a policy and an SA for a packet, but no way to send it to the peer.",
        cause: "There is no route to the SA's outer destination.",
        remedy: "ip route get ADDRESS, with the DESTINATION that epochgate xfrm state shows.",
    },
    Counter {
        name: "XfrmOutBundleCheckError",
        meaning: "A path that the kernel remembered was no longer valid.",
        cause: "Current kernels do not count it.",
        remedy: "Nothing.",
    },
    Counter {
        name: "XfrmOutNoStates",
        meaning: "A packet to be protected found no SA and was not held: it was dropped.",
        cause: "The tunnel is not up: its key daemon is down, still negotiating, or failing. \
            Packets are held instead only where net.core.xfrm_larval_drop is 0, and then not those \
            that SNAT brings under a policy.",
        remedy: "epochgate xfrm policy --dir out marks the policies without an SA. Start the \
            tunnel, or look into its key daemon's log.",
    },
    Counter {
        name: "XfrmOutStateProtoError",
        meaning: "An SA could not encrypt a packet.",
        cause: "No memory, or the kernel's cryptography or a card's offload failed.",
        remedy: "Look into dmesg; if SAs are offloaded to a card, try without.",
    },
    Counter {
        name: "XfrmOutStateModeError",
        meaning: "The outer header of a packet could not be made.",
        cause: "The SA's mode does not fit the packet: it is of the other address family, for one, \
            and the SA lacks the flag af-unspec.",
        remedy: "Compare mode and flags (epochgate xfrm state --wide) with the policy's selector.",
    },
    Counter {
        name: "XfrmOutStateSeqError",
        meaning: "An SA had no sequence number left for a packet.",
        cause: "2^32 packets were sent through one SA without a rekey.",
        remedy: "Rekey earlier (by packets or bytes), or use extended sequence numbers (ESN).",
    },
    Counter {
        name: "XfrmOutStateExpired",
        meaning: "A packet was to be sent through an SA whose hard limit was reached.",
        cause: "The SA was not replaced in time: its key daemon is down, or its soft and hard \
            limits are too close together.",
        remedy: "Look at LEFT in epochgate xfrm state, and into the key daemon's log.",
    },
    Counter {
        name: "XfrmOutPolBlock",
        meaning: "A packet to be sent was dropped by a policy whose action is block.",
        cause: "Somebody has set such a policy: some key daemons do while a tunnel is down.",
        remedy: "epochgate xfrm policy --dir out shows it (ACTION block).",
    },
    Counter {
        name: "XfrmOutPolDead",
        meaning: "A packet met a policy that was being deleted.",
        cause: "Current kernels do not count it.",
        remedy: "Nothing.",
    },
    Counter {
        name: "XfrmOutPolError",
        meaning: "A packet met an out policy whose template can't be served, and not merely for \
            want of an SA.",
        cause: "The template pins an SPI, and the SA that has it has another reqid, mode, if_id or \
            selector. What the policy held is discarded with it.",
        remedy: "epochgate xfrm policy --dir out marks such a policy and says what does not fit.",
    },
    Counter {
        name: "XfrmFwdHdrError",
        meaning: "A packet to be forwarded could not be read, or had no route.",
        cause: "Damaged packets, or a route that went away meanwhile.",
        remedy: "Look at the routes; capture what is forwarded.",
    },
    Counter {
        name: "XfrmOutStateInvalid",
        meaning: "A packet was to be sent through an SA that was being deleted, or had expired.",
        cause: "It was under way when its SA was deleted: a few at each rekey are normal.",
        remedy: "If it grows all the time, SAs end before their successors are there: look into \
            the key daemon's log.",
    },
    Counter {
        name: "XfrmAcquireError",
        meaning: "A packet came in for a larval SA: one whose SPI is reserved, but that has no keys \
            yet.",
        cause: "The peer sends already while this end still negotiates, or the key daemon here \
            failed to complete the SA.",
        remedy: "A few while a tunnel starts are normal. If it grows, look into the key daemon's \
            log for an SA that it could not install.",
    },
    Counter {
        name: "XfrmOutStateDirError",
        meaning: "The SA that fits a packet to be sent is marked as one for packets that come in.",
        cause: "A key daemon has installed it with the wrong direction, or one reqid for both.",
        remedy: "epochgate xfrm policy --dir out marks the policy. Report it to the makers of the \
            key daemon.",
    },
    Counter {
        name: "XfrmInStateDirError",
        meaning: "A packet came in for an SA that is marked as one for packets that go out.",
        cause: "A key daemon has installed it with the wrong direction, or packets come back to \
            their sender.",
        remedy: "Look at DIR in epochgate xfrm state; capture to see where they come from.",
    },
    Counter {
        name: "XfrmInIptfsError",
        meaning: "What is inside an IP-TFS packet (RFC 9347) made no sense, or a part was missing.",
        cause: "Packets were lost, or reordered by more than the SA's reorder window.",
        remedy: "Look for loss on the path; configure a larger reorder window in the key daemon.",
    },
    Counter {
        name: "XfrmOutNoQueueSpace",
        meaning: "A packet was dropped because the queue of its IP-TFS SA (RFC 9347) was full.",
        cause: "More is sent than the SA or the path takes.",
        remedy: "Configure a larger queue in the key daemon, or send less.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_explained_once_and_in_sentences() {
        for counter in &COUNTERS {
            let same = COUNTERS.iter().filter(|other| other.name == counter.name);
            assert_eq!(same.count(), 1, "{}", counter.name);
            for text in [counter.meaning, counter.cause, counter.remedy] {
                assert!(text.ends_with('.'), "{text}");
                assert!(!text.contains("  "), "{text}");
            }
        }
    }
}
