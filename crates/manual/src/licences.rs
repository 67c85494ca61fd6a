//! The packages' file `copyright`: our own licence, and those of all that is linked into the programs.
//!
//! `cargo metadata` says which crates these are and where their sources lie; their licence files are
//! copied as they are, each text once. Of a crate that leaves a choice every text is there but that of
//! the Apache licence, which distributions have (and the packages bring) as a file of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

/// The crates whose dependencies are linked into what is packaged.
const PROGRAMS: [&str; 2] = ["epochgate", "epochgated"];
/// How the names of files with licences begin, in small letters.
const FILE_NAMES: [&str; 5] = ["licen", "copying", "copyright", "notice", "unlicense"];
/// Octets of a licence file at most; a longer one is none.
const FILE_OCTETS_MAX: u64 = 256 << 10;

const HEAD: &str = "\
epochgate is free software, under the MIT licence or the Apache licence 2.0, at your option.
Source: https://github.com/epochgate/epochgate

The text of the Apache licence 2.0 is in /usr/share/common-licenses/Apache-2.0 on Debian, and in
LICENSE-APACHE beside this file elsewhere. That of the MIT licence:

";

const OTHERS: &str = "
--------------------------------------------------------------------------------

The programs contain the Rust standard library, copyright The Rust Project Developers, under the
MIT licence or the Apache licence 2.0, and these crates of others:

";

/// A crate of somebody else's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    /// Its licence as an SPDX expression.
    licence: String,
    /// Where it is from.
    repository: String,
    /// The folder of its source.
    folder: String,
}

/// The text of the file, from our own MIT licence and the answer of
/// `cargo metadata --format-version 1`.
///
/// # Errors
/// Metadata of another form, licence files that can't be read, and crates that name no licence.
pub fn copyright(own: &str, metadata: &Value) -> io::Result<String> {
    let crates = linked(metadata)?;
    let mut text = format!("{HEAD}{}\n{OTHERS}", indented(own));
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for it in &crates {
        if it.licence.is_empty() {
            return Err(malformed(&format!("{} names no licence", it.name)));
        }
        text.push_str(&format!("  {} {}: {}\n", it.name, it.version, it.licence));
        if !it.repository.is_empty() {
            text.push_str(&format!("    {}\n", it.repository));
        }
        for licence in licence_texts(Path::new(&it.folder))? {
            texts.entry(licence).or_default().insert(it.name.clone());
        }
    }
    for (licence, names) in texts {
        let names: Vec<String> = names.into_iter().collect();
        text.push_str(&format!(
            "\n{}\n\nOf {}:\n\n{}\n",
            "-".repeat(80),
            names.join(", "),
            indented(&licence)
        ));
    }
    Ok(text)
}

/// All crates that normal dependencies lead to from the programs, without our own.
fn linked(metadata: &Value) -> io::Result<BTreeSet<Crate>> {
    let list = |value: &Value, what: &str| {
        let list = value.as_array().cloned();
        list.ok_or_else(|| malformed(&format!("it has no {what}")))
    };
    let packages = list(&metadata["packages"], "packages")?;
    let nodes = list(&metadata["resolve"]["nodes"], "resolved dependencies")?;
    let package: BTreeMap<&str, &Value> = packages
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let below: BTreeMap<&str, &Value> = nodes
        .iter()
        .filter_map(|node| Some((node["id"].as_str()?, &node["deps"])))
        .collect();
    let mut waiting: Vec<&str> = package
        .iter()
        .filter(|(_, it)| PROGRAMS.iter().any(|name| it["name"] == *name))
        .map(|(id, _)| *id)
        .collect();
    if waiting.len() != PROGRAMS.len() {
        return Err(malformed("the programs are not in it"));
    }
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        let dependencies = below.get(id).and_then(|it| it.as_array());
        for dependency in dependencies.into_iter().flatten() {
            let kinds = dependency["dep_kinds"].as_array();
            let is_linked = kinds.is_some_and(|all| all.iter().any(|it| it["kind"].is_null()));
            if let Some(id) = dependency["pkg"].as_str().filter(|_| is_linked) {
                waiting.push(id);
            }
        }
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(seen
        .into_iter()
        .filter_map(|id| package.get(id))
        // Ours have no source but this repository.
        .filter(|it| !it["source"].is_null())
        .map(|it| Crate {
            name: text(&it["name"]),
            version: text(&it["version"]),
            licence: text(&it["license"]),
            repository: text(&it["repository"]),
            folder: Path::new(&text(&it["manifest_path"]))
                .parent()
                .map(|folder| folder.display().to_string())
                .unwrap_or_default(),
        })
        .collect())
}

/// The texts of a source's licence files, but for the Apache licence alone.
fn licence_texts(folder: &Path) -> io::Result<BTreeSet<String>> {
    let mut texts = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        let is_licence = FILE_NAMES.iter().any(|begin| name.starts_with(begin));
        let file = fs::metadata(entry.path())?;
        if !is_licence || !file.is_file() || file.len() > FILE_OCTETS_MAX {
            continue;
        }
        let text = String::from_utf8_lossy(&fs::read(entry.path())?).into_owned();
        if !is_apache_licence(&text) {
            texts.insert(text.replace('\r', "").trim_matches('\n').to_owned());
        }
    }
    Ok(texts)
}

fn is_apache_licence(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.next() == Some("Apache License")
        && lines
            .next()
            .is_some_and(|line| line.starts_with("Version 2.0"))
}

/// Two blanks before each line that has text.
fn indented(text: &str) -> String {
    let lines = text.lines().map(|line| match line.trim_end() {
        "" => String::new(),
        line => format!("  {line}"),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn malformed(what: &str) -> io::Error {
    let text = format!("the output of cargo metadata: {what}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, source: Value, folder: &Path) -> Value {
        json!({
            "id": name, "name": name, "version": "1.0.0", "license": "MIT OR Apache-2.0",
            "repository": format!("https://example.org/{name}"), "source": source,
            "manifest_path": folder.join("Cargo.toml"),
        })
    }

    fn needs(name: &str, others: &[(&str, Value)]) -> Value {
        let deps: Vec<Value> = others
            .iter()
            .map(|(name, kind)| json!({"pkg": name, "dep_kinds": [{"kind": kind}]}))
            .collect();
        json!({"id": name, "deps": deps})
    }

    #[test]
    fn the_texts_of_what_is_linked_are_there_and_no_others() {
        let folder = tempfile::tempdir().expect("a directory");
        fs::write(folder.path().join("LICENSE-MIT"), "Copyright Somebody\n").expect("written");
        let apache = "\n     Apache License\n     Version 2.0, January 2004\n";
        fs::write(folder.path().join("LICENSE-APACHE"), apache).expect("written");
        let registry = || json!("registry");
        let metadata = json!({
            "packages": [
                package("epochgate", Value::Null, folder.path()),
                package("epochgated", Value::Null, folder.path()),
                package("linked", registry(), folder.path()),
                package("deeper", registry(), folder.path()),
                package("of-tests", registry(), folder.path()),
            ],
            "resolve": {"nodes": [
                needs("epochgate", &[("linked", Value::Null), ("of-tests", json!("dev"))]),
                needs("epochgated", &[]),
                needs("linked", &[("deeper", Value::Null)]),
            ]},
        });
        let text = copyright("Our own", &metadata).expect("metadata");
        assert!(text.contains("  Our own\n"), "{text}");
        assert!(
            text.contains("  linked 1.0.0: MIT OR Apache-2.0\n"),
            "{text}"
        );
        assert!(
            text.contains("Of deeper, linked:\n\n  Copyright Somebody\n"),
            "{text}"
        );
        assert!(
            !text.contains("of-tests") && !text.contains("January 2004"),
            "{text}"
        );
    }

    #[test]
    fn metadata_without_the_programs_is_refused() {
        let metadata = json!({"packages": [], "resolve": {"nodes": []}});
        assert!(copyright("", &metadata).is_err());
    }
}
