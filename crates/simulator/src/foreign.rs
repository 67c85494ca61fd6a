//! Other users of the same kernel: the policies and SAs of another key daemon, which nothing of ours
//! may touch (I6).

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use epochgate_controller::crypto::Cipher;
use epochgate_controller::io::{
    PolicyAction, PolicyDirection, PolicyKey, PolicyScope, PolicySpec, SaDirection, SaId, SaSpec,
    SequenceNumbers, Spi,
};
use epochgate_controller::{Secret, Timestamp};
use ipnet::IpNet;

use crate::kernel::Kernel;

/// The reqid of their SAs: strongSwan counts up from it.
const REQID: u32 = 1;
/// ICMPv6 neighbour solicitation (RFC 4861 §4.3).
const NEIGHBOUR_SOLICITATION: u8 = 135;

/// What others have in a kernel.
#[derive(Clone, Debug)]
pub(crate) struct Foreign {
    policies: Vec<PolicySpec>,
    sas: Vec<SaSpec>,
}

impl Foreign {
    /// Policies of every kind that we have ourselves, exemptions too, for other networks; and an SA.
    pub(crate) fn of(outer: IpAddr) -> Self {
        let hosts =
            [[198, 51, 100, 1], [198, 51, 100, 2]].map(|host| IpNet::from(IpAddr::from(host)));
        let networks = [1, 2].map(|number| {
            let segments = [0x2001, 0xdb8, 0xffff, number, 0, 0, 0, 0];
            IpNet::new_assert(IpAddr::from(segments), 64)
        });
        let policy =
            |direction, [source, destination]: [IpNet; 2], icmpv6_type, action| PolicySpec {
                key: PolicyKey {
                    direction,
                    source,
                    destination,
                    icmpv6_type,
                    scope: PolicyScope::Everything,
                },
                // Before everything of ours.
                priority: if icmpv6_type.is_some() { 1 } else { 2 },
                action,
            };
        let back = |[source, destination]: [IpNet; 2]| [destination, source];
        let (hold, accept) = (
            PolicyAction::Hold { reqid: REQID },
            PolicyAction::Accept { reqid: REQID },
        );
        let solicitation = Some(NEIGHBOUR_SOLICITATION);
        let policies = vec![
            policy(PolicyDirection::Out, hosts, None, hold),
            policy(PolicyDirection::In, back(hosts), None, accept),
            policy(PolicyDirection::Out, networks, None, hold),
            policy(PolicyDirection::Fwd, back(networks), None, accept),
            policy(
                PolicyDirection::Out,
                networks,
                solicitation,
                PolicyAction::Exempt,
            ),
            policy(
                PolicyDirection::In,
                back(networks),
                solicitation,
                PolicyAction::Exempt,
            ),
        ];
        let sa = SaSpec {
            id: SaId {
                destination: outer,
                spi: Spi(NonZeroU32::MIN),
            },
            source: IpAddr::from([198, 51, 100, 2]),
            direction: SaDirection::Inbound {
                report_first: false,
            },
            reqid: REQID,
            if_id: None,
            cipher: Cipher::AesGcm128,
            key: Secret::from(vec![0; 20]),
            sequence: SequenceNumbers {
                extended: false,
                window: 64,
            },
            encapsulation: None,
            hard_lifetime: Duration::from_secs(u64::from(u32::MAX)),
        };
        Self {
            policies,
            sas: vec![sa],
        }
    }

    /// Puts all of it into a kernel.
    pub(crate) fn put_into(&self, kernel: &mut Kernel, now: Timestamp) {
        for policy in &self.policies {
            kernel.add_foreign_policy(*policy, now);
        }
        for sa in &self.sas {
            kernel.add_foreign_sa(sa.clone(), now);
        }
    }

    /// Their policies.
    pub(crate) fn policies(&self) -> &[PolicySpec] {
        &self.policies
    }

    /// Their SAs.
    pub(crate) fn sas(&self) -> &[SaSpec] {
        &self.sas
    }

    /// Their SAs are flushed by somebody.
    pub(crate) fn forget_sas(&mut self) {
        self.sas.clear();
    }

    /// Their policies are flushed by somebody.
    pub(crate) fn forget_policies(&mut self) {
        self.policies.clear();
    }

    /// What is no longer as they left it.
    pub(crate) fn touched_in(&self, kernel: &Kernel) -> Option<String> {
        let policy = self
            .policies
            .iter()
            .find(|policy| kernel.policy(&policy.key) != Some(policy));
        if let Some(policy) = policy {
            return Some(format!(
                "somebody else's policy {:?} was touched",
                policy.key
            ));
        }
        let sa = self.sas.iter().find(|sa| kernel.sa(sa.id) != Some(sa))?;
        Some(format!("somebody else's SA {:?} was touched", sa.id))
    }
}
