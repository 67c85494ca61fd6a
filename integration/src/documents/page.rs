//! A document and its fenced blocks.

use std::fs;
use std::path::{Path, PathBuf};

/// Languages of blocks that are no commands.
const LANGUAGES: [&str; 6] = ["conf", "json", "rust", "text", "toml", "toml,ignore"];

/// The host whose prompt `$ ` is, where none is named.
const HOST: &str = "branch";

/// A document.
#[derive(Debug)]
pub struct Document {
    /// Where it is.
    pub path: PathBuf,
    /// Its lines.
    pub lines: Vec<String>,
    /// Its fenced blocks, in their order.
    pub blocks: Vec<Block>,
}

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// Index of its first line of content.
    pub first: usize,
    /// What it is.
    pub kind: Kind,
    /// Its content.
    pub lines: Vec<String>,
}

/// What a block is.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// Commands and what they print.
    Console {
        /// What the stage is like.
        scenario: String,
        /// Where they are typed.
        host: String,
        /// How each of them ends.
        exit: i32,
        /// After how many seconds they are interrupted.
        stop: Option<u32>,
    },
    /// A file.
    File {
        /// Which stage it is on.
        scenario: String,
        /// Of which host.
        host: String,
        /// Its whole path.
        path: String,
    },
    /// Anything else.
    Example,
}

/// A command and what is shown of its output.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// What is typed.
    pub text: String,
    /// Index of the first line of output in the document.
    pub output: usize,
    /// The lines that are shown.
    pub shown: Vec<String>,
}

/// README.md and all of `docs/`.
///
/// # Errors
/// A sentence that says which block of which document is not as it must be.
pub fn documents() -> Result<Vec<Document>, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = |error: std::io::Error| error.to_string();
    let mut paths = vec![root.join("README.md")];
    for entry in fs::read_dir(root.join("docs")).map_err(text)? {
        let path = entry.map_err(text)?.path();
        if path.extension().is_some_and(|it| it == "md") {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| Document::read(&path))
        .collect()
}

impl Document {
    fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let blocks = blocks(&lines)
            .map_err(|(line, why)| format!("{}:{}: {why}", path.display(), line + 1))?;
        Ok(Self {
            path: path.to_owned(),
            lines,
            blocks,
        })
    }

    /// Its name in the repository's root.
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

/// The blocks among these lines, or what is wrong in which line.
fn blocks(lines: &[String]) -> Result<Vec<Block>, (usize, String)> {
    let mut blocks = Vec::new();
    let mut index = 0;
    while index < lines.len() {
        let Some(info) = lines[index].strip_prefix("```") else {
            index += 1;
            continue;
        };
        let kind = kind(info).map_err(|why| (index, why))?;
        let first = index + 1;
        let rest = lines.get(first..).unwrap_or_default();
        let Some(length) = rest.iter().position(|line| line == "```") else {
            return Err((index, "the block does not end".to_owned()));
        };
        let content = rest.iter().take(length).cloned().collect();
        let block = Block {
            first,
            kind,
            lines: content,
        };
        block.commands().map_err(|why| (index, why))?;
        blocks.push(block);
        index = first + length + 1;
    }
    Ok(blocks)
}

fn kind(info: &str) -> Result<Kind, String> {
    let words: Vec<&str> = info.split_whitespace().collect();
    match words.as_slice() {
        ["console"] => Err("commands without a scenario: ```console SCENARIO".to_owned()),
        ["console", scenario, options @ ..] => console(scenario, options),
        [language, ..] if !LANGUAGES.contains(language) => Err(format!(
            "{language} is no language here: commands are ```console SCENARIO, others are {}",
            LANGUAGES.join(", ")
        )),
        [_, scenario, host, path] if path.starts_with('/') => Ok(Kind::File {
            scenario: (*scenario).to_owned(),
            host: (*host).to_owned(),
            path: (*path).to_owned(),
        }),
        [_] | [_, _] => Ok(Kind::Example),
        [] => Err("a block without a language".to_owned()),
        _ => Err("neither an example nor a file: ```LANGUAGE SCENARIO HOST PATH".to_owned()),
    }
}

fn console(scenario: &str, options: &[&str]) -> Result<Kind, String> {
    let mut host = HOST;
    let (mut exit, mut stop) = (0, None);
    let number = |text: &str| {
        text.parse::<i32>()
            .map_err(|_| format!("{text} is no number"))
    };
    for option in options {
        match option.split_once('=') {
            Some(("exit", text)) => exit = number(text)?,
            Some(("stop", text)) => {
                stop = Some(u32::try_from(number(text)?).map_err(|error| error.to_string())?);
            }
            Some((other, _)) => return Err(format!("{other}= is no option")),
            None => host = option,
        }
    }
    Ok(Kind::Console {
        scenario: scenario.to_owned(),
        host: host.to_owned(),
        exit,
        stop,
    })
}

impl Block {
    /// The commands of a block of commands, and none of another one.
    ///
    /// # Errors
    /// When it does not begin with a command.
    pub fn commands(&self) -> Result<Vec<Command>, String> {
        let mut commands: Vec<Command> = Vec::new();
        if !matches!(self.kind, Kind::Console { .. }) {
            return Ok(commands);
        }
        let mut goes_on = false;
        for (index, line) in self.lines.iter().enumerate() {
            let output = self.first + index + 1;
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (_, Some(last)) if goes_on => {
                    last.text.push('\n');
                    last.text.push_str(line);
                    last.output = output;
                }
                (Some(text), _) => commands.push(Command {
                    text: text.to_owned(),
                    output,
                    shown: Vec::new(),
                }),
                (None, Some(last)) => last.shown.push(line.clone()),
                (None, None) => {
                    return Err("a block of commands begins with `$ `".to_owned());
                }
            }
            goes_on = line.ends_with('\\');
        }
        Ok(commands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Block>, (usize, String)> {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        blocks(&lines)
    }

    #[test]
    fn a_command_has_the_lines_that_follow_it() {
        let blocks =
            parsed("x\n```console up hq exit=1\n$ a \\\n  b\nout\n$ c\n```\n").expect("blocks");
        let commands = blocks[0].commands().expect("commands");
        assert_eq!(commands[0].text, "a \\\n  b");
        assert_eq!(commands[0].shown, ["out"]);
        assert_eq!(commands[0].output, 4);
        assert_eq!(commands[1].text, "c");
        assert!(commands[1].shown.is_empty());
        let Kind::Console { host, exit, .. } = &blocks[0].kind else {
            unreachable!("commands");
        };
        assert_eq!((host.as_str(), *exit), ("hq", 1));
    }

    #[test]
    fn no_block_escapes() {
        for wrong in [
            "```console\n$ a\n```",
            "```sh\na\n```",
            "```bash x\na\n```",
            "```\na\n```",
            "```console up\nout\n```",
            "```console up\n$ a",
            "```console up exit=x\n$ a\n```",
            "```console up wait=1\n$ a\n```",
            "```toml a b c\n```",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_names_its_host_and_path() {
        let blocks = parsed("```toml first hq /etc/x.toml\na = 1\n```").expect("blocks");
        let Kind::File { host, path, .. } = &blocks[0].kind else {
            unreachable!("a file");
        };
        assert_eq!((host.as_str(), path.as_str()), ("hq", "/etc/x.toml"));
        assert_eq!(parsed("```toml name\n```").map(|it| it.len()), Ok(1));
    }
}
