//! Takes everything of ours out of the kernel, for a host that is to have no epochgate any more.
//!
//! SAs go first and policies after them, so that no packet is protected any more when the policies
//! that would hold it go. Larval SAs, which held packets leave, have no SPI to delete them by and would
//! stay for `net.core.xfrm_acq_expires`: they get one.

use epochgate_controller::REQIDS;
use epochgate_controller::io::{XfrmError, XfrmOp, XfrmReply};
use epochgate_xfrm::{Reqid, SpiRequest};

use super::{Kernel, refusal};
use crate::leftovers::Removed;

impl Kernel {
    /// Removes SAs, policies and interfaces of ours, and counts them. What somebody else removes
    /// meanwhile counts as removed.
    ///
    /// # Errors
    /// The kernel's first refusal.
    pub(crate) async fn remove_ours(&mut self) -> Result<Removed, XfrmError> {
        self.give_larval_sas_spis().await?;
        let reply = self.perform(XfrmOp::ReadOurs).await?;
        let XfrmReply::Ours { policies, sas } = reply else {
            return Err(XfrmError::Other(
                "the kernel's lists are missing".to_owned(),
            ));
        };
        for sa in &sas {
            self.perform(XfrmOp::RemoveSa(sa.id)).await?;
        }
        let removed = Removed {
            sas: sas.len(),
            policies: policies.len(),
            ..Removed::default()
        };
        self.perform(XfrmOp::RemovePolicies(policies)).await?;
        let interfaces = self.own.interfaces.all();
        for if_id in &interfaces {
            self.perform(XfrmOp::RemoveInterface(*if_id)).await?;
        }
        Ok(Removed {
            interfaces: interfaces.len(),
            ..removed
        })
    }

    /// Makes larval SAs of ours ordinary ones, which have an SPI (XFRM_MSG_ALLOCSPI finds the larval
    /// SA by its addresses and reqid: `xfrm_find_acq`).
    async fn give_larval_sas_spis(&mut self) -> Result<(), XfrmError> {
        let sas = self.requests.sas().await.map_err(|e| refusal(&e))?;
        let larval = sas
            .iter()
            .map(|entry| &entry.sa)
            .filter(|sa| sa.spi.is_none() && REQIDS.contains(&sa.reqid.0));
        for sa in larval {
            let mut request = SpiRequest::esp_tunnel(sa.source, sa.destination, Reqid(sa.reqid.0));
            request.mark = sa.mark;
            request.if_id = sa.if_id;
            let given = self.requests.allocate_spi(&request).await;
            given.map_err(|e| refusal(&e))?;
        }
        Ok(())
    }
}
