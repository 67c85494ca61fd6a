//! `[ike]`: what strangers may make this host keep before they have proved who they are.

use epochgate_controller::config::HalfOpenConfig;

use crate::diagnostic::Sink;
use crate::keys::{COOKIE_THRESHOLD, HALF_OPEN_LIFETIME, HALF_OPEN_MAX, HALF_OPEN_PER_ADDRESS};
use crate::reader::Section;
use crate::values::{read_duration, read_number};

pub(crate) fn read(section: &Section<'_>, sink: &mut Sink) -> HalfOpenConfig {
    let cookie_threshold = read_number(section, "cookie-threshold", COOKIE_THRESHOLD, sink);
    let max = read_number(section, "half-open-max", HALF_OPEN_MAX, sink);
    let per_address_max = read_number(
        section,
        "half-open-per-address",
        HALF_OPEN_PER_ADDRESS,
        sink,
    );
    let are_right = !cookie_threshold.is_wrong && !max.is_wrong;
    if are_right && cookie_threshold.value >= max.value {
        let span = match section.has("cookie-threshold") {
            true => cookie_threshold.span,
            false => max.span,
        };
        let title = format!(
            "a cookie is demanded from {} half-open IKE SAs on",
            cookie_threshold.value
        );
        let label = format!("there are never more than {}", max.value);
        sink.error(span, title, label)
            .help("make `cookie-threshold` smaller than `half-open-max`");
    }
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    HalfOpenConfig {
        cookie_threshold: count(cookie_threshold.value),
        max: count(max.value),
        per_address_max: count(per_address_max.value),
        lifetime: read_duration(section, "half-open-lifetime", HALF_OPEN_LIFETIME, sink).value,
    }
}
