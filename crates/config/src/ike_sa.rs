//! `[tunnel.NAME.ike]`: how long IKE SAs live, and when both ends authenticate anew.

use epochgate_controller::config::IkeSaConfig;

use crate::diagnostic::Sink;
use crate::keys::{IKE_LIFETIME, IKE_REAUTHENTICATE};
use crate::reader::Section;
use crate::values::read_duration;

/// What `reauthenticate` says when it is not a duration.
pub(crate) const NEVER: &str = "never";

pub(crate) fn read(section: &Section<'_>, sink: &mut Sink) -> IkeSaConfig {
    let lifetime = read_duration(section, "lifetime", IKE_LIFETIME, sink).value;
    let text = section.text("reauthenticate", sink);
    let reauthenticate = match text {
        Some(text) if text.value != NEVER => {
            Some(read_duration(section, "reauthenticate", IKE_REAUTHENTICATE, sink).value)
        }
        Some(_) | None => None,
    };
    IkeSaConfig {
        lifetime,
        reauthenticate,
    }
}
