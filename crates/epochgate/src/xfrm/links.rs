//! The names of the host's interfaces and the if_ids of its xfrm interfaces, asked of the kernel
//! over rtnetlink (RTM_GETLINK) in the calling thread's network namespace.

use std::collections::HashMap;
use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoXfrm, LinkAttribute, LinkInfo, LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

/// Seconds to wait for an answer; the kernel gives it while it takes the request.
const ANSWER_SECONDS: i64 = 2;
/// Datagrams of one answer that are read at most: about a million interfaces.
const DATAGRAMS_MAX: usize = 100_000;
/// Room for a datagram: the kernel fills dumps up to 32 KiB (`netlink_recvmsg`).
const DATAGRAM_LENGTH: usize = 64 * 1024;

/// Interface names by index, and xfrm interfaces by if_id.
#[derive(Debug, Default)]
pub(crate) struct Links {
    pub(crate) names: HashMap<u32, String>,
    pub(crate) xfrm: HashMap<u32, String>,
}

/// Asks the kernel.
pub(crate) fn read() -> io::Result<Links> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    setsockopt(
        &socket,
        sockopt::ReceiveTimeout,
        &TimeVal::new(ANSWER_SECONDS, 0),
    )?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;

    let mut links = Links::default();
    let mut buffer = Vec::with_capacity(DATAGRAM_LENGTH);
    for _ in 0..DATAGRAMS_MAX {
        buffer.clear();
        socket.recv_from(&mut buffer, 0)?;
        if !links.absorb(&buffer) {
            break;
        }
    }
    Ok(links)
}

impl Links {
    /// Takes a datagram; false at the end of the list.
    fn absorb(&mut self, mut datagram: &[u8]) -> bool {
        while !datagram.is_empty() {
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) else {
                return false;
            };
            let length = message.header.length as usize;
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => self.add(&link),
                NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return false,
                _ => {}
            }
            datagram = datagram
                .get(length.next_multiple_of(4).max(4)..)
                .unwrap_or_default();
        }
        true
    }

    fn add(&mut self, link: &LinkMessage) {
        let mut name = None;
        let mut if_id = None;
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text.clone()),
                LinkAttribute::LinkInfo(infos) => {
                    if_id = if_id.or(infos.iter().find_map(xfrm_id));
                }
                _ => {}
            }
        }
        if let Some(name) = name {
            if let Some(id) = if_id {
                self.xfrm.insert(id, name.clone());
            }
            self.names.insert(link.header.index, name);
        }
    }
}

fn xfrm_id(info: &LinkInfo) -> Option<u32> {
    let LinkInfo::Data(InfoData::Xfrm(data)) = info else {
        return None;
    };
    data.iter().find_map(|item| match item {
        InfoXfrm::IfId(id) => Some(*id),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_xfrm_interface_is_found_by_its_id() {
        let mut link = LinkMessage::default();
        link.header.index = 4;
        link.attributes = vec![
            LinkAttribute::IfName("ipsec0".into()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Data(InfoData::Xfrm(vec![
                InfoXfrm::Link(2),
                InfoXfrm::IfId(9),
            ]))]),
        ];
        let mut links = Links::default();
        links.add(&link);
        assert_eq!(links.names.get(&4).map(String::as_str), Some("ipsec0"));
        assert_eq!(links.xfrm.get(&9).map(String::as_str), Some("ipsec0"));
    }

    #[test]
    fn bytes_that_are_no_message_end_the_list() {
        assert!(!Links::default().absorb(&[1, 2, 3]));
        assert!(Links::default().absorb(&[]));
    }

    #[test]
    fn this_machine_has_a_loopback_interface() {
        let links = read().expect("rtnetlink needs no privileges");
        assert!(links.names.values().any(|name| name == "lo"), "{links:?}");
    }
}
