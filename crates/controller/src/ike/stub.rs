#![allow(dead_code, unused_variables, missing_docs, clippy::todo)]
use super::*;
use crate::Timestamp;
use crate::config::TunnelConfig;
use crate::crypto::Crypto;
use crate::io::Datagram;
use std::collections::BTreeMap;
use std::sync::Arc;
pub(crate) struct Endpoint;
#[derive(Default)]
pub(crate) struct Limits;
pub(crate) enum IkeOutput {
    Transmit(Datagram),
    Event {
        sa: IkeSaId,
        tunnel: TunnelId,
        event: IkeEvent,
    },
}
impl Endpoint {
    pub(crate) fn new(crypto: Arc<dyn Crypto>, limits: Limits) -> Self {
        todo!()
    }
    pub(crate) fn configure(&mut self, tunnels: BTreeMap<TunnelId, Arc<TunnelConfig>>) {
        todo!()
    }
    pub(crate) fn set_announcement(&mut self, tunnel: TunnelId, ping_address: Option<IpAddr>) {
        todo!()
    }
    pub(crate) fn connect(
        &mut self,
        tunnel: TunnelId,
        local: SocketAddr,
        remote: SocketAddr,
        initial_contact: bool,
        now: Timestamp,
    ) -> IkeSaId {
        todo!()
    }
    pub(crate) fn handle_datagram(&mut self, datagram: &Datagram, now: Timestamp) {
        todo!()
    }
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        todo!()
    }
    pub(crate) fn next_timeout(&self) -> Option<Timestamp> {
        todo!()
    }
    pub(crate) fn poll(&mut self) -> Option<IkeOutput> {
        todo!()
    }
    pub(crate) fn child_ready(
        &mut self,
        sa: IkeSaId,
        child: ChildId,
        installed: bool,
        now: Timestamp,
    ) {
        todo!()
    }
    pub(crate) fn rekey_child(&mut self, sa: IkeSaId, child: ChildId, now: Timestamp) {
        todo!()
    }
    pub(crate) fn new_child(&mut self, sa: IkeSaId, now: Timestamp) {
        todo!()
    }
    pub(crate) fn delete_child(&mut self, sa: IkeSaId, child: ChildId, now: Timestamp) {
        todo!()
    }
    pub(crate) fn close(&mut self, sa: IkeSaId, now: Timestamp) {
        todo!()
    }
    pub(crate) fn forget(&mut self, sa: IkeSaId) {
        todo!()
    }
    pub(crate) fn check_liveness(&mut self, sa: IkeSaId, now: Timestamp) {
        todo!()
    }
    pub(crate) fn status(&self, sa: IkeSaId, now: Timestamp) -> Option<crate::status::IkeStatus> {
        todo!()
    }
}
pub(crate) mod selectors {
    pub(crate) fn contain(s: &[epochgate_ike_wire::TrafficSelector], n: ipnet::IpNet) -> bool {
        todo!()
    }
}
