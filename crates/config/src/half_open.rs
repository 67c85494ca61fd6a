//! `[ike]`: what strangers may make this host keep before they have proved who they are.

use epochgate_controller::config::HalfOpenConfig;

use crate::diagnostic::Sink;
use crate::keys::{COOKIE_THRESHOLD, HALF_OPEN_LIFETIME, HALF_OPEN_MAX, HALF_OPEN_PER_ADDRESS};
use crate::reader::Section;
use crate::values::{read_duration, read_number};

pub(crate) fn read(section: &Section<'_>, sink: &mut Sink) -> HalfOpenConfig {
    let mut count = |key, bounds| {
        let number = read_number(section, key, bounds, sink);
        usize::try_from(number).unwrap_or(usize::MAX)
    };
    let cookie_threshold = count("cookie-threshold", COOKIE_THRESHOLD);
    let max = count("half-open-max", HALF_OPEN_MAX);
    let per_address_max = count("half-open-per-address", HALF_OPEN_PER_ADDRESS);
    if cookie_threshold >= max {
        let span = section
            .number("cookie-threshold", &mut Sink::new("", ""))
            .or_else(|| section.number("half-open-max", &mut Sink::new("", "")))
            .map_or(section.span(), |number| number.span);
        let title = format!("a cookie is demanded from {cookie_threshold} half-open IKE SAs on");
        sink.error(span, title, format!("there are never more than {max}"))
            .help("make `cookie-threshold` smaller than `half-open-max`");
    }
    HalfOpenConfig {
        cookie_threshold,
        max,
        per_address_max,
        lifetime: read_duration(section, "half-open-lifetime", HALF_OPEN_LIFETIME, sink).value,
    }
}
