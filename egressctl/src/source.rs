//! What `-f` and FILE arguments name: files, folders, and `-` for standard input.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::document::{self, Node, Position};
use crate::failure::{Failure, Result};

/// What a comment says to silence a rule.
pub const IGNORE: &str = "egressctl:ignore";

/// One YAML document and where it came from.
#[derive(Debug)]
pub struct Document {
    /// The file as the user named it, `<stdin>`, or the cluster's context.
    pub origin: String,
    /// The document.
    pub root: Node,
    /// Whether the user named the file itself, rather than a folder that it lies in.
    pub is_named: bool,
    /// The lines of the whole file, those without [`IGNORE`] empty; none for what a cluster sent.
    pub lines: std::rc::Rc<[String]>,
}

/// `FILE:LINE:COLUMN`, as editors understand it; without a line for what a cluster sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// As in [`Document::origin`].
    pub origin: String,
    /// Where in it.
    pub at: Position,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at.line {
            0 => f.write_str(&self.origin),
            line => write!(f, "{}:{line}:{}", self.origin, self.at.column),
        }
    }
}

impl Document {
    /// A document that a cluster sent.
    #[must_use]
    pub fn from_cluster(context: &str, object: serde_json::Value) -> Self {
        Document { origin: context.to_owned(), root: Node::from(object), is_named: true, lines: Vec::new().into() }
    }

    /// Where a node of this document stands.
    #[must_use]
    pub fn locate(&self, node: &Node) -> Location {
        Location { origin: self.origin.clone(), at: node.at }
    }
}

/// Reads all documents of files, folders (every `.yaml`, `.yml` and `.json` below them, in the order of their names) and
/// `-`.
///
/// # Errors
///
/// What cannot be read or is no YAML, with its line; a folder without such files.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            take_stdin()?;
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|error| Failure::new(format!("<stdin>: cannot be read: {error}")))?;
            parse("<stdin>", &text, true, &mut documents)?;
        } else if path.is_dir() {
            let files = files_below(path, &mut BTreeSet::new())?;
            if files.is_empty() {
                let message = format!("{}: no .yaml, .yml or .json file in this folder", path.display());
                return Err(Failure::new(message));
            }
            for file in files {
                read_file(&file, false, &mut documents)?;
            }
        } else {
            read_file(path, true, &mut documents)?;
        }
    }
    Ok(documents)
}

/// Whoever reads standard input says so first: a second reader would find nothing there.
///
/// # Errors
///
/// Somebody has read it.
pub fn take_stdin() -> Result<()> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(Failure::new("- stands for standard input, which can be read once; name a file for the other"));
    }
    Ok(())
}

/// Paths as messages name them.
#[must_use]
pub fn names(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn read_file(path: &Path, is_named: bool, documents: &mut Vec<Document>) -> Result<()> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| Failure::new(format!("{}: cannot be read: {error}", path.display())))?;
    parse(&path.display().to_string(), &text, is_named, documents)
}

fn parse(origin: &str, text: &str, is_named: bool, documents: &mut Vec<Document>) -> Result<()> {
    let roots = document::read(text).map_err(|invalid| {
        let location = Location { origin: origin.to_owned(), at: invalid.at };
        Failure::new(format!("{location}: {invalid}"))
    })?;
    let lines: std::rc::Rc<[String]> =
        text.lines().map(|line| if line.contains(IGNORE) { line.to_owned() } else { String::new() }).collect();
    documents.extend(roots.into_iter().map(|root| Document {
        origin: origin.to_owned(),
        root,
        is_named,
        lines: lines.clone(),
    }));
    Ok(())
}

/// Each folder once: links may lead in circles.
fn files_below(folder: &Path, known: &mut BTreeSet<PathBuf>) -> Result<Vec<PathBuf>> {
    let fail = |error: std::io::Error| Failure::new(format!("{}: cannot be read: {error}", folder.display()));
    if !known.insert(folder.canonicalize().map_err(fail)?) {
        return Ok(Vec::new());
    }
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).map_err(fail)?.collect::<std::result::Result<_, _>>().map_err(fail)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path, known)?);
        } else if path
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
        {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn follows_links_that_lead_in_circles_once() {
        let folder = std::env::temp_dir().join(format!("egressctl-links-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("below")).unwrap();
        for file in ["a.yaml", "below/b.json", "below/c.txt"] {
            std::fs::write(folder.join(file), "{}").unwrap();
        }
        for link in ["again", "below/up"] {
            std::os::unix::fs::symlink(&folder, folder.join(link)).unwrap();
        }
        let files = files_below(&folder, &mut BTreeSet::new());
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(files.unwrap(), ["a.yaml", "below/b.json"].map(|file| folder.join(file)));
    }
}
