//! The controller's report, completed with what the kernel and the firewall's rules say.

use std::time::{SystemTime, UNIX_EPOCH};

use epochgate_config::nearest;
use epochgate_control::Response;
use epochgate_controller::io::SaId;
use epochgate_controller::status::{SaTraffic, StatusReport};
use tokio::sync::oneshot;

use super::{Firewall, Shell};
use crate::kernel::Kernel;

/// SAs whose counters are read for one report: 10 ms of the kernel's time. With more, those of the
/// first tunnels are; who wants another one's asks for it by name.
const SAS_READ_MAX: usize = 1024;

/// Names of tunnels that are listed to whoever asks for one that there is not.
const NAMED_MAX: usize = 20;

/// Who waits for an answer.
pub(super) struct Waiting {
    pub(super) answer: oneshot::Sender<Response>,
    /// The tunnel that a report is wanted of, if not of all.
    pub(super) tunnel: Option<String>,
}

impl Shell {
    /// What a client that asked for a report gets.
    pub(super) async fn report(
        &mut self,
        mut report: StatusReport,
        tunnel: Option<String>,
    ) -> Response {
        if let Some(name) = tunnel {
            let found = report.tunnels.iter().position(|it| it.name == name);
            match found {
                Some(found) => report.tunnels = vec![report.tunnels.swap_remove(found)],
                None => {
                    let message = unknown(&name, &report);
                    return Response::Failed { message };
                }
            }
        }
        self.firewall.add_to(&mut report);
        self.chores.add_to(&mut report, self.now);
        add_traffic(&mut self.hands.kernel, &mut report).await;
        Response::Status {
            report: Box::new(report),
        }
    }
}

fn unknown(name: &str, report: &StatusReport) -> String {
    let names: Vec<&str> = report.tunnels.iter().map(|it| it.name.as_str()).collect();
    let meant = match nearest(name, &names) {
        Some(meant) => format!("; did you mean {meant}?"),
        None => String::new(),
    };
    let configured = match names.as_slice() {
        [] => "none is configured".to_owned(),
        names if names.len() > NAMED_MAX => format!(
            "configured are {} and {} more: see epochgate status",
            names[..NAMED_MAX].join(", "),
            names.len() - NAMED_MAX
        ),
        names => format!("configured are: {}", names.join(", ")),
    };
    format!("there is no tunnel {name}; {configured}{meant}")
}

/// What the epochs' SAs have carried.
async fn add_traffic(kernel: &mut Kernel, report: &mut StatusReport) {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = since_1970.map_or(0, |since| since.as_secs());
    let epochs = report.tunnels.iter_mut().flat_map(|it| &mut it.epochs);
    for epoch in epochs.take(SAS_READ_MAX / 2) {
        if let Some([inbound, outbound]) = epoch.sas {
            epoch.received = traffic(kernel, inbound, now).await;
            epoch.sent = traffic(kernel, outbound, now).await;
        }
    }
}

async fn traffic(kernel: &mut Kernel, sa: SaId, now: u64) -> Option<SaTraffic> {
    let entry = kernel.sa(sa).await?;
    Some(SaTraffic {
        packets: entry.usage.packets,
        bytes: entry.usage.bytes,
        last_ms: entry
            .last_used
            .map(|last| now.saturating_sub(last).saturating_mul(1000)),
    })
}

impl Firewall {
    /// Shows what was found with the tunnels that it is about.
    fn add_to(&self, report: &mut StatusReport) {
        for tunnel in &mut report.tunnels {
            let found = self
                .known
                .iter()
                .filter(|finding| *finding.tunnel.0 == *tunnel.name)
                .map(|finding| finding.text.clone());
            let texts: Vec<String> = tunnel.last_error.take().into_iter().chain(found).collect();
            if !texts.is_empty() {
                tunnel.last_error = Some(texts.join("; "));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(names: &[String]) -> StatusReport {
        let tunnel = |name: &String| {
            let json = serde_json::json!({
                "name": name, "role": "client", "gate": "down", "reason": "",
                "local_traffic": [], "remote_traffic": [], "refused_traffic": [],
                "ike": [], "epochs": [], "pings_sent": 0, "pings_answered": 0, "switches": 0,
                "held_packets_max": 101,
            });
            serde_json::from_value(json).expect("a status")
        };
        StatusReport {
            schema: 1,
            tunnels: names.iter().map(tunnel).collect(),
        }
    }

    #[test]
    fn who_asks_for_an_unknown_tunnel_learns_which_there_are() {
        let few = report(&["branch".to_owned(), "hq".to_owned()]);
        assert_eq!(
            unknown("brnach", &few),
            "there is no tunnel brnach; configured are: branch, hq; did you mean branch?"
        );
        assert_eq!(
            unknown("x", &report(&[])),
            "there is no tunnel x; none is configured"
        );
        let names: Vec<String> = (0..50).map(|number| format!("site-{number}")).collect();
        let many = unknown("elsewhere", &report(&names));
        assert!(
            many.ends_with("site-19 and 30 more: see epochgate status"),
            "{many}"
        );
    }
}
