//! Numbers as a person reads them.

/// A time in its two largest units.
pub(super) fn time(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days}d {}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h {}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m {}s", seconds % 60)
    } else if seconds > 0 {
        format!("{seconds}s")
    } else {
        format!("{milliseconds}ms")
    }
}

/// A time in its largest unit, for tables.
pub(super) fn short_time(milliseconds: u64) -> String {
    let text = time(milliseconds);
    match text.split_once(' ') {
        Some((largest, _)) => largest.to_owned(),
        None => text,
    }
}

/// Microseconds as milliseconds, to a tenth.
pub(super) fn milliseconds(microseconds: u64) -> String {
    let tenths = microseconds.saturating_add(50) / 100;
    format!("{}.{} ms", tenths / 10, tenths % 10)
}

/// Bytes in decimal units.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut unit = 0;
    let mut tenths = count / 100;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A number with commas between thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `one` of one, `many` of any other number.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    let word = if count == 1 { one } else { many };
    format!("{} {word}", grouped(count))
}

/// `text` in so many columns: a longer one is cut, and shows that.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept.trim_end().to_owned() + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_two_units() {
        let told = [0, 999, 1000, 61_000, 3_600_000, 90_061_000].map(time);
        assert_eq!(told, ["0ms", "999ms", "1s", "1m 1s", "1h 0m", "1d 1h"]);
        assert_eq!(short_time(90_061_000), "1d");
        assert_eq!(milliseconds(50_349), "50.3 ms");
        assert_eq!(milliseconds(49), "0.0 ms");
    }

    #[test]
    fn large_numbers_stay_readable() {
        let told = [0, 999, 1000, 123_456, 1_000_000, u64::MAX].map(bytes);
        assert_eq!(
            told,
            ["0 B", "999 B", "1.0 kB", "123.4 kB", "1.0 MB", "18.4 EB"]
        );
        let told = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(told, ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(counted(1, "packet", "packets"), "1 packet");
    }

    #[test]
    fn what_is_cut_shows_that() {
        assert_eq!(cut("as it is", 8), "as it is");
        assert_eq!(cut("one two three", 5), "one…");
        assert_eq!(cut("abc", 1), "…");
    }
}
