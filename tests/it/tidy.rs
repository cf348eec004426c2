//! The tidy test holds the house (`docs/architecture.md`, `docs/invariants.md`). Each rule is shown to find what it is for.

mod code;
mod docs;
mod rooms;
mod rules;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One file of the repository, as text.
pub struct File {
    /// Relative to the repository, with `/`.
    pub path: String,
    /// As it is.
    pub text: String,
    /// Comments and the insides of literals blanked; of Rust files only.
    pub code: String,
}

/// Where a rule is broken, and which.
#[derive(Debug, PartialEq)]
pub struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl File {
    /// A file with this path and text.
    pub fn new(path: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        let code = if path.ends_with(".rs") { code::blanked(&text) } else { String::new() };
        File { path: path.to_owned(), text, code }
    }

    /// Whether it is part of the program.
    pub fn is_source(&self) -> bool {
        self.path.starts_with("src/") && self.is_rust()
    }

    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// A finding on `line`, from 1.
    pub fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, what: what.into() }
    }

    /// A finding at a byte of its code.
    pub fn finding_at(&self, at: usize, what: impl Into<String>) -> Finding {
        self.finding(code::line_of(&self.code, at), what)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// The repository's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All text files that are tracked or about to be; in an unpacked archive without git, all below the known folders.
fn files() -> Vec<File> {
    let read = |path: PathBuf| {
        let name =
            path.strip_prefix(root()).expect("a path below the root").to_string_lossy().replace('\\', "/");
        std::fs::read_to_string(path).ok().map(|text| File::new(&name, text))
    };
    tracked().unwrap_or_else(walked).into_iter().filter_map(read).collect()
}

fn tracked() -> Option<Vec<PathBuf>> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").args(list).current_dir(root()).output().ok()?;
    let text = String::from_utf8(listed.stdout).ok()?;
    let paths: Vec<PathBuf> = text.split_terminator('\0').map(|path| root().join(path)).collect();
    (listed.status.success() && !paths.is_empty()).then_some(paths)
}

fn walked() -> Vec<PathBuf> {
    const KNOWN: [&str; 9] =
        [".ci", "benches", "chart", "dev", "docs", "runbooks", "schedules", "src", "tests"];
    let mut found = vec![root().join("README.md"), root().join("CHANGELOG.md"), root().join("Cargo.toml")];
    let mut folders: Vec<PathBuf> = KNOWN.iter().map(|name| root().join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => found.push(path),
            }
        }
    }
    found
}

/// Fails with all findings of a rule, not the first only.
fn holds(rule: impl Fn(&File) -> Vec<Finding>) {
    let files = files();
    assert!(files.iter().any(File::is_source), "the rule has nothing to look at");
    none(files.iter().flat_map(rule));
}

fn none(findings: impl IntoIterator<Item = Finding>) {
    let lines: Vec<String> = findings.into_iter().map(|finding| finding.to_string()).collect();
    assert!(lines.is_empty(), "{} findings:\n{}", lines.len(), lines.join("\n"));
}

/// Asserts that a rule finds nothing in `good` and something in `bad`.
#[track_caller]
fn tells_apart(rule: impl Fn(&File) -> Vec<Finding>, path: &str, good: &str, bad: &str) {
    assert_eq!(rule(&File::new(path, good)), [], "in a good file");
    assert!(!rule(&File::new(path, bad)).is_empty(), "the planted fault was not found in:\n{bad}");
}
