//! Tests of epochgate on a real kernel: a small framework of namespaces, links, NAT, captures, traffic and peers.
