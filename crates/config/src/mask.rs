//! Masks what may be a secret in a file's text, before any of its lines is shown.
//!
//! It works on text rather than on parsed values, because a file that does not parse is shown too.
//! Lengths in octets stay as they are, so that carets still point at the right place.

/// Keys whose values nobody may see: what people write when they put a secret into the file itself.
const SECRET_KEYS: [&str; 6] = [
    "psk",
    "secret",
    "password",
    "passphrase",
    "key",
    "shared-key",
];

/// Names a file of ours; people write key material behind it all the same.
const PATH_KEY: &str = "key";

/// The text with the value of every secret key replaced by asterisks.
pub(crate) fn secrets(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(value_at) = next_secret(rest) {
        let (before, value) = rest.split_at(value_at);
        shown.push_str(before);
        let length = value_length(value);
        for character in value[..length].chars() {
            match character {
                '\n' | '\r' => shown.push(character),
                hidden => (0..hidden.len_utf8()).for_each(|_| shown.push('*')),
            }
        }
        rest = &value[length..];
    }
    shown.push_str(rest);
    shown
}

/// Whether a value in quotes is the name of a PEM file: key material has no dot.
fn is_file_name(value: &str) -> bool {
    let inner = value.strip_prefix('"').and_then(|it| it.split('"').next());
    inner.is_some_and(|name| name.ends_with(".key") || name.ends_with(".pem"))
}

/// Where the next secret value begins, after its `key =`.
fn next_secret(text: &str) -> Option<usize> {
    let is_word = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
    let octets = text.as_bytes();
    let mut at = 0;
    while at < octets.len() {
        if !is_word(octets[at]) {
            at += 1;
            continue;
        }
        let end = at + octets[at..].iter().take_while(|o| is_word(**o)).count();
        let word = text[at..end].to_ascii_lowercase().replace('_', "-");
        at = end;
        if !SECRET_KEYS.contains(&word.as_str()) {
            continue;
        }
        let after = text[end..].trim_start_matches(['"', '\'', ' ', '\t']);
        if let Some(value) = after.strip_prefix('=') {
            let value = value.trim_start_matches([' ', '\t']);
            if word == PATH_KEY && is_file_name(value) {
                continue;
            }
            return Some(text.len() - value.len());
        }
    }
    None
}

/// Octets of the value at the beginning of `text`: to its closing quote; to the end of the line
/// or the file where there is none.
fn value_length(text: &str) -> usize {
    for multi_line in ["\"\"\"", "'''"] {
        if let Some(body) = text.strip_prefix(multi_line) {
            let inner = body.find(multi_line).map(|at| at + multi_line.len());
            return multi_line.len() + inner.unwrap_or(body.len());
        }
    }
    let line = text.split(['\n', '\r']).next().unwrap_or_default();
    let Some(quote) = line.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return line.len();
    };
    let mut escaped = false;
    for (at, character) in line.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if character == '\\' && quote == '"' {
            escaped = true;
        } else if character == quote {
            return at + quote.len_utf8();
        }
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_and_its_neighbours_are_not() {
        let text = r#"local = { id = "a", psk = "geh\"eim", address = "%any" }"#;
        let want = r#"local = { id = "a", psk = **********, address = "%any" }"#;
        assert_eq!(secrets(text), want);
        assert_eq!(secrets("psk-file = \"/x\""), "psk-file = \"/x\"");
        assert_eq!(secrets("key = \"/x/gate.key\""), "key = \"/x/gate.key\"");
        assert_eq!(secrets("key = \"/x/gate\""), "key = *********");
    }

    #[test]
    fn a_secret_without_its_closing_quote_is_masked_to_the_end_of_the_line() {
        assert_eq!(secrets("psk = \"geheim\nrole"), "psk = *******\nrole");
        assert_eq!(secrets("\"psk\" = geheim"), "\"psk\" = ******");
        assert_eq!(secrets("a.psk = '''x\ny''' # c"), "a.psk = ****\n**** # c");
    }

    #[test]
    fn masking_keeps_the_length_in_octets() {
        let text = "Password='schlüssel'\n";
        assert_eq!(secrets(text).len(), text.len());
        assert!(!secrets(text).contains("schl"));
    }
}
