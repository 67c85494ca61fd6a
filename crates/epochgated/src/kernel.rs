//! The controller's kernel operations, done by `epochgate-xfrm`, and the kernel's events for it.
//!
//! Operations are done one after the other: the answer to NEWSA is there before UPDPOLICY is sent.
//! Events that our own operations caused are swallowed here, and so are those about other people's
//! SAs and policies. The group of first-packet events is joined only while an SA is awaited: as long
//! as anybody listens, every SA of everybody sends one every other packet.

mod interface;
mod migrate;
mod read;
mod remove;
mod spec;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use epochgate_controller::REQIDS;
use epochgate_controller::io::{
    FoundSa, IfId, InterfaceSpec, PolicyKey, PolicySpec, SaDirection, SaId, SaSpec, XfrmError,
    XfrmEvent, XfrmOp, XfrmReply,
};
use epochgate_xfrm::{
    AsyncEventSocket, AsyncSocket, EventFlags, EventGroup, EventThresholds, Op, SaEntry,
};
use rtnetlink::Handle;

use self::interface::Interfaces;

type Outcome = Result<XfrmReply, XfrmError>;

/// The kernel's IPsec stack, as the controller sees it.
pub struct Kernel {
    requests: AsyncSocket,
    events: AsyncEventSocket,
    own: Own,
    /// Makes interfaces; none before [`Kernel::use_links`].
    links: Option<Handle>,
}

/// What is ours in the kernel, to tell our own doing from other people's.
#[derive(Debug, Default)]
struct Own {
    interfaces: Interfaces,
    /// Inbound SAs whose first packet is awaited.
    awaited: HashSet<SaId>,
    /// SAs that we removed and whose event has not come yet.
    removed_sas: HashMap<SaId, u32>,
    /// Policies that we removed and whose event has not come yet.
    removed_policies: HashMap<PolicyKey, u32>,
}

impl Kernel {
    /// Opens the sockets and begins to listen.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN; EPROTONOSUPPORT without XFRM in the kernel.
    pub fn open() -> epochgate_xfrm::Result<Self> {
        let groups = [
            EventGroup::Acquire,
            EventGroup::Expire,
            EventGroup::Sa,
            EventGroup::Policy,
            EventGroup::Mapping,
        ];
        Ok(Self {
            requests: AsyncSocket::open()?,
            events: AsyncEventSocket::open(&groups)?,
            own: Own::default(),
            links: None,
        })
    }

    /// Whether the kernel has ESP in tunnel mode with AES-GCM: adds an SA that nothing uses, to a
    /// documentation address, and removes it.
    ///
    /// # Errors
    /// EPROTONOSUPPORT or ENOSYS if it has not.
    pub async fn probe_esp(&mut self) -> epochgate_xfrm::Result<()> {
        let probe = spec::probe();
        match self.requests.add_sa(&probe).await {
            Ok(()) => {}
            // A run that was killed in this very moment left it.
            Err(error) if error.is_exists() => {}
            Err(error) => return Err(error),
        }
        if let Some(id) = probe.id() {
            self.requests.delete_sa(id).await?;
        }
        Ok(())
    }

    /// Does one operation.
    pub async fn perform(&mut self, op: XfrmOp) -> Outcome {
        match op {
            XfrmOp::ReadOurs => self.read_ours().await,
            XfrmOp::AddInterface(spec) => self.add_interface(&spec).await,
            XfrmOp::RemoveInterface(if_id) => self.remove_interface(if_id).await,
            XfrmOp::AddSa(sa) => self.add_sa(&sa).await,
            XfrmOp::MoveSa(change) => self.move_sa(&change).await,
            XfrmOp::RemoveSa(id) => self.remove_sa(id).await,
            XfrmOp::CreatePolicies(policies) => self.create_policies(&policies).await,
            XfrmOp::UpdatePolicies(policies) => self.update_policies(&policies).await,
            XfrmOp::RemovePolicies(keys) => self.remove_policies(&keys).await,
            XfrmOp::ReadPackets(id) => match self.requests.sa(spec::sa_id(id)).await {
                Ok(entry) => Ok(XfrmReply::Packets(entry.usage.packets)),
                Err(error) => Err(refusal(&error)),
            },
            XfrmOp::ReportFirst { sa, on } => self.report_first(sa, on).await,
        }
    }

    /// An SA with what it has carried; `None` where it is gone.
    pub async fn sa(&mut self, id: SaId) -> Option<SaEntry> {
        let read = self.requests.sa(spec::sa_id(id)).await;
        read.inspect_err(|error| tracing::debug!("{error}")).ok()
    }

    /// What an SA has carried; `None` where it is gone.
    pub async fn usage(&mut self, id: SaId) -> Option<epochgate_xfrm::Usage> {
        Some(self.sa(id).await?.usage)
    }

    /// Waits for the next event that the controller must know of. Cancel-safe.
    ///
    /// # Errors
    /// As the socket fails.
    pub async fn event(&mut self) -> epochgate_xfrm::Result<XfrmEvent> {
        loop {
            let event = self.events.next().await?;
            if let Some(event) = self.own.translate(event) {
                return Ok(event);
            }
        }
    }

    /// Gives the socket to make xfrm interfaces by.
    pub fn use_links(&mut self, handle: Handle) {
        self.links = Some(handle);
    }

    /// The index of a tunnel's xfrm interface.
    ///
    /// # Errors
    /// Why there is none.
    pub fn interface_index(&self, if_id: IfId) -> Result<u32, String> {
        self.own.interfaces.index(if_id)
    }

    /// The name of a tunnel's xfrm interface.
    #[must_use]
    pub fn interface_name(&self, if_id: IfId) -> Option<&str> {
        self.own.interfaces.name(if_id)
    }

    async fn add_interface(&mut self, spec: &InterfaceSpec) -> Outcome {
        let Some(handle) = &self.links else {
            return Err(XfrmError::Other("there is no rtnetlink socket".to_owned()));
        };
        let outcome = self.own.interfaces.add(handle, spec).await;
        outcome.map(|()| XfrmReply::Done)
    }

    async fn remove_interface(&mut self, if_id: IfId) -> Outcome {
        let Some(handle) = &self.links else {
            return Ok(XfrmReply::Done);
        };
        let outcome = self.own.interfaces.remove(handle, if_id).await;
        outcome.map(|()| XfrmReply::Done)
    }

    async fn read_ours(&mut self) -> Outcome {
        if let Some(handle) = &self.links {
            let read = self.own.interfaces.read(handle).await;
            read.map_err(XfrmError::Other)?;
        }
        let policies = self.requests.policies().await.map_err(|e| refusal(&e))?;
        let sas = self.requests.sas().await.map_err(|e| refusal(&e))?;
        Ok(XfrmReply::Ours {
            policies: read::our_policies(
                &policies
                    .iter()
                    .map(|entry| &entry.policy)
                    .collect::<Vec<_>>(),
                &self.own.interfaces,
            ),
            sas: sas
                .iter()
                .filter(|entry| REQIDS.contains(&entry.sa.reqid.0))
                .filter_map(|entry| {
                    Some(FoundSa {
                        id: read::sa_id(entry.sa.id()?)?,
                        reqid: entry.sa.reqid.0,
                    })
                })
                .collect(),
        })
    }

    async fn add_sa(&mut self, sa: &SaSpec) -> Outcome {
        let awaited = matches!(sa.direction, SaDirection::Inbound { report_first: true });
        if awaited {
            // Before the SA is there, or its first packet could be missed.
            self.await_first(sa.id)?;
        }
        let outcome = self.requests.add_sa(&spec::sa(sa)).await;
        if awaited && outcome.is_err() {
            self.await_no_more(sa.id);
        }
        done(outcome)
    }

    async fn remove_sa(&mut self, id: SaId) -> Outcome {
        self.await_no_more(id);
        match self.requests.delete_sa(spec::sa_id(id)).await {
            Ok(()) => {
                *self.own.removed_sas.entry(id).or_default() += 1;
                Ok(XfrmReply::Done)
            }
            Err(error) if error.is_missing() => Ok(XfrmReply::Done),
            Err(error) => Err(refusal(&error)),
        }
    }

    /// Creates all or none.
    async fn create_policies(&mut self, specs: &[PolicySpec]) -> Outcome {
        let policies = spec::policies(specs, &self.own.interfaces)?;
        let ops: Vec<Op<'_>> = policies.iter().map(Op::AddPolicy).collect();
        let outcomes = self.requests.batch(&ops).await;
        let Some(failure) = outcomes.iter().find_map(|outcome| outcome.as_ref().err()) else {
            self.let_holds_call(specs).await;
            return Ok(XfrmReply::Done);
        };
        let failure = refusal(failure);
        let created: Vec<PolicyKey> = specs
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| outcome.is_ok())
            .map(|(spec, _)| spec.key)
            .collect();
        // The first failure is the one to tell.
        let _ = self.remove_policies(&created).await;
        Err(failure)
    }

    async fn update_policies(&mut self, specs: &[PolicySpec]) -> Outcome {
        let policies = spec::policies(specs, &self.own.interfaces)?;
        let ops: Vec<Op<'_>> = policies.iter().map(Op::UpdatePolicy).collect();
        let outcome = first_failure(self.requests.batch(&ops).await);
        self.let_holds_call(specs).await;
        outcome
    }

    /// Makes the next packet that meets a hold raise an ACQUIRE.
    ///
    /// The last one left a larval SA, and as long as that is there (`net.core.xfrm_acq_expires`,
    /// 30 s) no packet raises another. A larval SA has no SPI to delete it by: ALLOCSPI gives it
    /// one, or makes one where there is none.
    async fn let_holds_call(&mut self, specs: &[PolicySpec]) {
        for request in spec::larval_sas(specs) {
            let cleared = match self.requests.allocate_spi(&request).await {
                Ok(SaEntry { sa, .. }) => match sa.id() {
                    Some(id) => self.delete_larval(id).await,
                    None => Ok(()),
                },
                Err(error) => Err(error),
            };
            if let Err(error) = cleared {
                // The tunnel then starts some seconds late at worst.
                tracing::debug!("{error}");
            }
        }
    }

    async fn delete_larval(&mut self, id: epochgate_xfrm::SaId) -> epochgate_xfrm::Result<()> {
        self.requests.delete_sa(id).await?;
        if let Some(id) = read::sa_id(id) {
            *self.own.removed_sas.entry(id).or_default() += 1;
        }
        Ok(())
    }

    async fn remove_policies(&mut self, keys: &[PolicyKey]) -> Outcome {
        let mut ops = Vec::with_capacity(keys.len());
        for key in keys {
            ops.push(Op::DeletePolicy(spec::policy_id(
                key,
                &self.own.interfaces,
            )?));
        }
        let mut outcomes = self.requests.batch(&ops).await;
        for (key, outcome) in keys.iter().zip(&mut outcomes) {
            match outcome {
                Ok(()) => *self.own.removed_policies.entry(*key).or_default() += 1,
                Err(error) if error.is_missing() => *outcome = Ok(()),
                Err(_) => {}
            }
        }
        first_failure(outcomes)
    }

    async fn report_first(&mut self, sa: SaId, on: bool) -> Outcome {
        let thresholds = if on {
            self.await_first(sa)?;
            EventThresholds::NEXT_PACKET
        } else {
            self.await_no_more(sa);
            EventThresholds::SILENT
        };
        done(
            self.requests
                .set_event_thresholds(spec::sa_id(sa), thresholds)
                .await,
        )
    }

    fn await_first(&mut self, sa: SaId) -> Result<(), XfrmError> {
        if self.own.awaited.is_empty() {
            self.events
                .join(EventGroup::Aevents)
                .map_err(|error| refusal(&error))?;
        }
        self.own.awaited.insert(sa);
        Ok(())
    }

    fn await_no_more(&mut self, sa: SaId) {
        if self.own.awaited.remove(&sa)
            && self.own.awaited.is_empty()
            && let Err(error) = self.events.leave(EventGroup::Aevents)
        {
            tracing::debug!("{error}");
        }
    }
}

impl Own {
    fn translate(&mut self, event: epochgate_xfrm::XfrmEvent) -> Option<XfrmEvent> {
        use epochgate_xfrm::XfrmEvent as Raw;
        match event {
            Raw::Acquire(acquire) => acquire
                .reqid()
                .filter(|reqid| REQIDS.contains(&reqid.0))
                .map(|reqid| XfrmEvent::Acquire { reqid: reqid.0 }),
            Raw::NewAe(state) => read::sa_id(state.id)
                .filter(|id| {
                    self.awaited.contains(id) && state.flags.contains(EventFlags::CAUSE_REPLAY)
                })
                .map(XfrmEvent::FirstPacket),
            Raw::Expire(expire) => ours(&expire.entry).map(XfrmEvent::Expired),
            Raw::DelSa(id, entry) => {
                let id = read::sa_id(id)?;
                let foreign = entry.is_some_and(|entry| !REQIDS.contains(&entry.sa.reqid.0));
                let own = forget(&mut self.removed_sas, &id);
                (!own && !foreign).then_some(XfrmEvent::SaRemoved(id))
            }
            Raw::DelPolicy(id, entry) => {
                let key = match entry {
                    Some(entry) => read::policy_key(&entry.policy, &self.interfaces),
                    None => read::key_of_id(&id, &self.interfaces),
                }?;
                let own = forget(&mut self.removed_policies, &key);
                (!own).then_some(XfrmEvent::PolicyRemoved(key))
            }
            Raw::Mapping(mapping) => {
                if !REQIDS.contains(&mapping.reqid.0) {
                    return None;
                }
                Some(XfrmEvent::MappingChanged {
                    sa: read::sa_id(mapping.id)?,
                    source: SocketAddr::new(mapping.new_address, mapping.new_port),
                })
            }
            // None of our own events was lost.
            Raw::FlushSa(_) | Raw::FlushPolicy => Some(XfrmEvent::Overrun),
            Raw::Overrun => {
                // Which of our own events were lost is not known.
                self.removed_sas.clear();
                self.removed_policies.clear();
                Some(XfrmEvent::Overrun)
            }
            Raw::Malformed {
                message_type,
                error,
            } => {
                tracing::debug!(message_type, "cannot read an XFRM event: {error}");
                None
            }
            // Additions and updates, by ourselves and by others, and what has no meaning for us.
            _ => None,
        }
    }
}

/// Takes one of ours off the account; whether there was one.
fn forget<K: Eq + std::hash::Hash>(removed: &mut HashMap<K, u32>, key: &K) -> bool {
    let Some(count) = removed.get_mut(key) else {
        return false;
    };
    *count -= 1;
    if *count == 0 {
        removed.remove(key);
    }
    true
}

fn ours(entry: &epochgate_xfrm::SaEntry) -> Option<SaId> {
    if !REQIDS.contains(&entry.sa.reqid.0) {
        return None;
    }
    read::sa_id(entry.sa.id()?)
}

fn done(outcome: epochgate_xfrm::Result<()>) -> Outcome {
    match outcome {
        Ok(()) => Ok(XfrmReply::Done),
        Err(error) => Err(refusal(&error)),
    }
}

fn first_failure(outcomes: Vec<epochgate_xfrm::Result<()>>) -> Outcome {
    done(outcomes.into_iter().collect())
}

fn refusal(error: &epochgate_xfrm::XfrmError) -> XfrmError {
    let text = error.to_string();
    if error.is_exists() {
        XfrmError::Exists(text)
    } else if error.is_missing() {
        XfrmError::Missing(text)
    } else {
        XfrmError::Other(text)
    }
}

/// A selector that can't be said to the kernel; the controller makes none.
fn invalid(error: epochgate_xfrm::InvalidSelector) -> XfrmError {
    XfrmError::Other(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use epochgate_controller::io;
    use epochgate_xfrm as xfrm;

    use super::*;

    fn sa() -> SaId {
        SaId {
            destination: [192, 0, 2, 1].into(),
            spi: io::Spi(NonZeroU32::new(0x1000).expect("not 0")),
        }
    }

    fn removed(id: SaId) -> xfrm::XfrmEvent {
        xfrm::XfrmEvent::DelSa(spec::sa_id(id), None)
    }

    #[test]
    fn our_own_removal_is_swallowed_once() {
        let mut own = Own::default();
        own.removed_sas.insert(sa(), 1);
        assert_eq!(own.translate(removed(sa())), None);
        assert_eq!(
            own.translate(removed(sa())),
            Some(XfrmEvent::SaRemoved(sa()))
        );
    }

    #[test]
    fn a_flush_by_somebody_else_means_to_look_again() {
        let mut own = Own::default();
        own.removed_sas.insert(sa(), 1);
        assert_eq!(
            own.translate(xfrm::XfrmEvent::FlushPolicy),
            Some(XfrmEvent::Overrun)
        );
        // None of our own events was lost, and so ours is not taken for somebody else's.
        assert_eq!(own.translate(removed(sa())), None);
    }

    #[test]
    fn nobody_knows_which_of_our_own_events_an_overrun_lost() {
        let mut own = Own::default();
        own.removed_sas.insert(sa(), 1);
        let overrun = own.translate(xfrm::XfrmEvent::Overrun);
        assert_eq!(overrun, Some(XfrmEvent::Overrun));
        assert!(own.removed_sas.is_empty());
    }
}
