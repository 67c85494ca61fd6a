//! The xfrm interfaces of route-based tunnels: made and removed by rtnetlink, and known by the
//! number (`IFLA_XFRM_IF_ID`) that their SAs and policies carry.
//!
//! A policy for what is routed to an interface names it by its index, which changes with every
//! interface that is made; the controller knows the number alone.

use std::collections::BTreeMap;

use epochgate_controller::REQIDS;
use epochgate_controller::io::{IfId, InterfaceSpec, XfrmError};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{InfoData, InfoXfrm, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::{Handle, LinkUnspec, LinkXfrm};

use crate::route::{errno, text};

/// The loopback interface, which an xfrm interface is put on: its packets leave by their outer
/// addresses' routes.
const LOOPBACK: u32 = 1;

/// The interfaces that are ours.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    known: BTreeMap<IfId, Known>,
    /// Why an interface could not be made.
    refused: BTreeMap<IfId, String>,
}

#[derive(Clone, Debug)]
struct Known {
    index: u32,
    name: String,
}

impl Interfaces {
    /// What an earlier run left.
    ///
    /// # Errors
    /// A sentence that says what failed.
    pub(super) async fn read(&mut self, handle: &Handle) -> Result<(), String> {
        self.known.clear();
        let mut links = Box::pin(handle.link().get().execute());
        loop {
            match links.try_next().await {
                Ok(Some(link)) => {
                    if let Some((if_id, known)) = ours(&link) {
                        self.known.insert(if_id, known);
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(format!("cannot list the interfaces: {}", text(&error))),
            }
        }
    }

    /// Makes an interface and sets it up. One with this name and number is taken over.
    pub(super) async fn add(
        &mut self,
        handle: &Handle,
        spec: &InterfaceSpec,
    ) -> Result<(), XfrmError> {
        let outcome = self.make(handle, spec).await;
        match &outcome {
            Ok(()) => self.refused.remove(&spec.if_id),
            Err(error) => self.refused.insert(spec.if_id, error.clone()),
        };
        outcome.map_err(XfrmError::Other)
    }

    async fn make(&mut self, handle: &Handle, spec: &InterfaceSpec) -> Result<(), String> {
        let name = spec.name.as_ref();
        self.read(handle).await?;
        let another = self.known.get(&spec.if_id);
        if let Some(another) = another.filter(|known| known.name != name) {
            // Renamed in the configuration.
            let index = another.index;
            self.known.remove(&spec.if_id);
            delete(handle, index).await?;
        }
        if !self.known.contains_key(&spec.if_id) {
            let link = LinkXfrm::new(name, LOOPBACK, spec.if_id.0.get());
            let made = handle.link().add(link.mtu(spec.mtu).up().build()).execute();
            made.await.map_err(|error| match errno(&error) {
                Some(libc::EEXIST) => format!(
                    "there is an interface {name} already, which is not this tunnel's: remove it, \
                     or choose another name for `interface`"
                ),
                Some(libc::EOPNOTSUPP) => format!(
                    "this kernel has no xfrm interfaces (CONFIG_XFRM_INTERFACE), which `interface` \
                     {name} needs"
                ),
                _ => format!("cannot make interface {name}: {}", text(&error)),
            })?;
            self.read(handle).await?;
        }
        let Some(known) = self.known.get(&spec.if_id) else {
            return Err(format!("interface {name} vanished as soon as it was made"));
        };
        let up = LinkUnspec::new_with_index(known.index).mtu(spec.mtu).up();
        let set = handle.link().set(up.build()).execute().await;
        set.map_err(|error| format!("cannot set interface {name} up: {}", text(&error)))
    }

    /// Removes an interface.
    pub(super) async fn remove(&mut self, handle: &Handle, if_id: IfId) -> Result<(), XfrmError> {
        match self.known.remove(&if_id) {
            Some(known) => delete(handle, known.index).await.map_err(XfrmError::Other),
            None => Ok(()),
        }
    }

    /// All of ours.
    pub(super) fn all(&self) -> Vec<IfId> {
        self.known.keys().copied().collect()
    }

    /// An interface's index.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn index(&self, if_id: IfId) -> Result<u32, String> {
        match (self.known.get(&if_id), self.refused.get(&if_id)) {
            (Some(known), _) => Ok(known.index),
            (None, Some(why)) => Err(why.clone()),
            (None, None) => Err(format!("there is no xfrm interface {:#x}", if_id.0)),
        }
    }

    /// An interface's name.
    pub(super) fn name(&self, if_id: IfId) -> Option<&str> {
        self.known.get(&if_id).map(|known| known.name.as_str())
    }

    /// Which of ours has this index.
    pub(super) fn with_index(&self, index: i32) -> Option<IfId> {
        let index = u32::try_from(index).ok()?;
        let mut known = self.known.iter();
        known
            .find(|(_, known)| known.index == index)
            .map(|(if_id, _)| *if_id)
    }

    #[cfg(test)]
    pub(super) fn one(if_id: IfId, index: u32) -> Self {
        let name = "ipsec0".to_owned();
        Self {
            known: BTreeMap::from([(if_id, Known { index, name })]),
            refused: BTreeMap::new(),
        }
    }
}

async fn delete(handle: &Handle, index: u32) -> Result<(), String> {
    match handle.link().del(index).execute().await {
        Ok(()) => Ok(()),
        Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(()),
        Err(error) => Err(format!("cannot remove an xfrm interface: {}", text(&error))),
    }
}

/// An xfrm interface whose number is in our range.
fn ours(link: &LinkMessage) -> Option<(IfId, Known)> {
    let mut if_id = None;
    let mut name = None;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(found) => name = Some(found.clone()),
            LinkAttribute::LinkInfo(infos) => {
                let data = infos.iter().filter_map(|info| match info {
                    LinkInfo::Data(InfoData::Xfrm(data)) => Some(data),
                    _ => None,
                });
                let mut numbers = data.flatten().filter_map(|info| match info {
                    InfoXfrm::IfId(number) => Some(*number),
                    _ => None,
                });
                if_id = numbers.next();
            }
            _ => {}
        }
    }
    let if_id = if_id.filter(|number| REQIDS.contains(number))?;
    let known = Known {
        index: link.header.index,
        name: name?,
    };
    Some((IfId(std::num::NonZeroU32::new(if_id)?), known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(number: u32) -> LinkMessage {
        let mut link = LinkXfrm::new("ipsec0", LOOPBACK, number).build();
        link.header.index = 7;
        link
    }

    #[test]
    fn an_interface_is_ours_by_its_number() {
        let found = ours(&link(*REQIDS.start())).map(|(if_id, known)| (if_id.0.get(), known.index));
        assert_eq!(found, Some((*REQIDS.start(), 7)));
        assert!(ours(&link(7)).is_none());
    }
}
