//! Reads the files and brings all findings of all of them together.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::node::{Node, Problem, Span, Value};
use super::yaml::Env;
use super::{Config, Entry, Schedule, SourceName, check, raw, schema, shape, yaml};
use crate::error::{Error, Kind, Result};

/// The longest configuration file, in bytes: hundreds of times what the largest estate needs.
const FILE_MAX: u64 = 1 << 20;

/// How many problems are shown; nobody reads more before mending some.
const SHOWN_MAX: usize = 200;

/// What the configuration's readers know and it does not.
pub struct Known<'a> {
    /// The kinds of sources: the keys that may stand beside a source's name.
    pub kinds: &'a [&'static str],
    /// The environment.
    pub env: &'a Env<'a>,
    /// Checks a source's or target's own part. Keys of its problems begin with the kind: `<kind>.url`.
    pub part: &'a mut dyn FnMut(&Entry) -> Vec<Problem>,
}

/// Reads `tidekeeper.yaml` and the schedules it points to.
///
/// # Errors
/// `Config`, with every problem of every file in its text, one on a line.
pub fn load(file: &Path, known: Known<'_>) -> Result<Config> {
    match read_files(file, known)? {
        Loaded { config: Some(config), problems, .. } if problems.is_empty() => Ok(config),
        Loaded { problems, .. } => Err(refuse(problems)),
    }
}

/// As [`load`], for whoever needs the vault alone: with mistakes elsewhere there are no sources, targets and schedules,
/// and those mistakes are told beside the rest.
///
/// # Errors
/// `Config`, as [`load`], if one of the problems stands in the way of every command.
pub fn load_vault(file: &Path, known: Known<'_>) -> Result<(Config, Option<Error>)> {
    match read_files(file, known)? {
        Loaded { config: Some(config), problems, .. } if problems.is_empty() => Ok((config, None)),
        Loaded { config: Some(config), problems, vital: false } => {
            let (sources, targets, schedules) = Default::default();
            Ok((Config { sources, targets, schedules, ..config }, Some(refuse(problems))))
        }
        Loaded { problems, .. } => Err(refuse(problems).hint(
            "what needs the vault alone goes on without a configuration: name it with --vault PATH or URL",
        )),
    }
}

/// What the files say, and what is wrong with them.
struct Loaded {
    config: Option<Config>,
    problems: Vec<Problem>,
    /// Whether one of the problems stands in the way of every command.
    vital: bool,
}

fn read_files(file: &Path, known: Known<'_>) -> Result<Loaded> {
    let text = read(file).map_err(|why| {
        Error::new(Kind::Config, format!("reading the configuration {}", file.display()), why)
            .hint("name it with --config or TIDEKEEPER_CONFIG; some commands need only --vault")
    })?;
    let mut loader = Loader { known, problems: Vec::new(), vital: false };
    let config = loader.main_file(file, &text);
    let Loader { problems, vital, .. } = loader;
    if config.is_none() && problems.is_empty() {
        let why = "it passed all checks and still cannot be read; this is a mistake of tidekeeper";
        return Err(Error::new(Kind::Internal, format!("reading the configuration {}", file.display()), why));
    }
    Ok(Loaded { config, problems, vital })
}

/// One error that says all problems, sorted by where they stand, one on a line.
pub fn refuse(mut problems: Vec<Problem>) -> Error {
    problems.sort();
    problems.dedup();
    let mut lines: Vec<String> = problems.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    if problems.len() > SHOWN_MAX {
        lines.push(format!("and {} more", problems.len() - SHOWN_MAX));
    }
    let count = match problems.len() {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    };
    Error::new(Kind::Config, "reading the configuration", format!("{count}\n{}", lines.join("\n")))
}

struct Loader<'a> {
    known: Known<'a>,
    problems: Vec<Problem>,
    vital: bool,
}

impl Loader<'_> {
    fn main_file(&mut self, file: &Path, text: &str) -> Option<Config> {
        let kinds = self.known.kinds.iter().map(|kind| (*kind, Json::Bool(true)));
        let (root, json) = self.parse(file, text, &schema::main_file(kinds))?;
        let root = &root;
        let (sources, targets) = self.entries(root);
        let schedules = self.schedules(root, &sources);

        let at = |key| root.near(key);
        let problems = &mut self.problems;
        let vault =
            section::<raw::Vault>(&json, "vault").and_then(|raw| check::vault(raw?, at("vault"), problems));
        let encryption = section::<raw::Encryption>(&json, "encryption")
            .map(|raw| raw.map(|raw| check::encryption(raw, at("encryption"), problems)));
        let api = section::<raw::Api>(&json, "api")
            .map(|raw| check::api(raw.unwrap_or_default(), at("api"), problems));
        let limits = section::<raw::Limits>(&json, "limits")
            .map(|raw| check::limits(raw.unwrap_or_default(), at("limits"), problems));
        self.vital = self.problems.iter().any(|problem| is_vital(problem, root));
        let (vault, single_writer) = vault?;
        let (encryption, limits, api) = (encryption?, limits?, api?);
        Some(Config { vault, single_writer, encryption, limits, sources, targets, schedules, api })
    }

    /// Text to a tree that was held against `schema`, and to what serde takes.
    fn parse(&mut self, file: &Path, text: &str, schema: &Json) -> Option<(Node, Json)> {
        let (node, problems) = yaml::parse(file, text, self.known.env);
        self.problems.extend(problems);
        let node = node?;
        let (json, problems) = shape::walk(&node, "", schema);
        self.problems.extend(problems);
        Some((node, json))
    }

    fn entries(&mut self, root: &Node) -> (Vec<Entry>, Vec<Entry>) {
        let mut names: Vec<(SourceName, Span)> = Vec::new();
        let mut lists = ["sources", "targets"].map(|list| {
            let items = root.near(list).items().iter().enumerate();
            let entries = items.filter_map(|(n, item)| self.entry(item, &format!("{list}[{n}]"), &mut names));
            entries.collect::<Vec<_>>()
        });
        (std::mem::take(&mut lists[0]), std::mem::take(&mut lists[1]))
    }

    /// What the tree says of one source or target; what it lacks, the schema has reported.
    fn entry(&mut self, item: &Node, path: &str, names: &mut Vec<(SourceName, Span)>) -> Option<Entry> {
        let at = item.get("name")?;
        let Value::Text(text) = &at.value else { return None };
        let name: SourceName = text.parse().ok()?;
        match names.iter().find(|(known, _)| *known == name) {
            Some((_, first)) => {
                let message = format!("the name `{name}` is in line {} already", first.line);
                self.problems.push(at.problem(shape::join(path, "name"), message));
            }
            None => names.push((name.clone(), at.span.clone())),
        }
        let (kind, part) = self.known.kinds.iter().find_map(|kind| Some((*kind, item.get(kind)?)))?;
        let entry = Entry { name, kind: kind.to_owned(), part: part.clone() };
        let problems = (self.known.part)(&entry).into_iter();
        self.problems.extend(problems.map(|found| Problem { key: shape::join(path, &found.key), ..found }));
        Some(entry)
    }

    fn schedules(&mut self, root: &Node, sources: &[Entry]) -> Vec<Schedule> {
        let Some(path) = check::path(root, "schedules") else { return Vec::new() };
        let files = match schedule_files(&path) {
            Ok(files) => files,
            Err(cause) => {
                let message = format!("cannot read {}: {cause}", path.display());
                self.problems.push(root.near("schedules").problem("schedules", message));
                return Vec::new();
            }
        };
        let schema = schema::schedule_file();
        let mut named: Vec<Node> = Vec::new();
        let mut schedules = Vec::new();
        for file in files {
            let Some((root, json)) = self.schedule_file(&file, &schema) else { continue };
            if let Some(source) = root.get("source") {
                self.check_source(source, sources, &named);
                named.push(source.clone());
            }
            match serde_json::from_value::<raw::Schedule>(json) {
                Ok(raw) => schedules.extend(check::schedule(raw, &root, &mut self.problems)),
                // The walk found why; if it did not, the file must not be dropped in silence.
                Err(cause) if self.problems.is_empty() => {
                    self.problems.push(root.problem("", cause.to_string()));
                }
                Err(_) => {}
            }
        }
        schedules
    }

    fn schedule_file(&mut self, file: &Path, schema: &Json) -> Option<(Node, Json)> {
        match read(file) {
            Ok(text) => self.parse(file, &text, schema),
            Err(message) => {
                let span = Span { file: file.into(), line: 1, column: 1 };
                self.problems.push(Problem { span, key: String::new(), message });
                None
            }
        }
    }

    /// A schedule's source exists, and no other schedule is for it.
    fn check_source(&mut self, at: &Node, sources: &[Entry], others: &[Node]) {
        let Value::Text(name) = &at.value else { return };
        let known = sources.iter().map(|source| source.name.as_str());
        if known.clone().all(|known| known != name) {
            let message = match shape::nearest(name, known.clone()) {
                Some(near) => format!("no source is called `{name}`; did you mean `{near}`?"),
                None => format!(
                    "no source is called `{name}`; there are: {}",
                    known.collect::<Vec<_>>().join(", ")
                ),
            };
            self.problems.push(at.problem("source", message));
        }
        let same = |other: &&Node| matches!(&other.value, Value::Text(other) if other == name);
        if let Some(first) = others.iter().find(same) {
            for (at, other) in [(first, at), (at, first)] {
                let other = other.span.file.display();
                let message =
                    format!("`{name}` has another schedule in {other}; expected one file for each source");
                self.problems.push(at.problem("source", message));
            }
        }
    }
}

/// The parts of the file without which the vault can be read all the same. A key that is none of them may be a misspelt
/// `encryption`.
const SPARE: [&str; 4] = ["sources", "targets", "schedules", "runbooks"];

/// Whether a problem stands in the way of every command.
fn is_vital(problem: &Problem, root: &Node) -> bool {
    let part = match problem.key.split(['.', '[']).next() {
        _ if problem.span.file != root.span.file => return false,
        None | Some("") => part_of(root, &problem.span),
        named => named,
    };
    part.is_none_or(|part| !SPARE.contains(&part))
}

/// The key of the file below which a place is: what is wrong with text has no path of keys.
fn part_of<'a>(root: &'a Node, at: &Span) -> Option<&'a str> {
    let (key, _) = root.entries().iter().rev().find(|(key, _)| key.span <= *at)?;
    let below = at.line == key.span.line || at.column > key.span.column;
    below.then_some(&key.text)
}

/// A section of the file: `Some(None)` when it is not there, `None` when the walk has found it wrong.
fn section<T: DeserializeOwned>(json: &Json, key: &str) -> Option<Option<T>> {
    match json.get(key) {
        None => Some(None),
        Some(section) => serde_json::from_value(section.clone()).ok(),
    }
}

/// The file itself, or the YAML files right in the folder, by name. Hidden ones are skipped: a mounted
/// ConfigMap has some.
fn schedule_files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = matches!(file.extension().and_then(OsStr::to_str), Some("yaml" | "yml"));
        if yaml && !hidden {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<String, String> {
    let length = std::fs::metadata(file).map_err(|cause| cause.to_string())?.len();
    if length > FILE_MAX {
        return Err(format!("it has {length} bytes; a configuration has at most {FILE_MAX}"));
    }
    let bytes = std::fs::read(file).map_err(|cause| cause.to_string())?;
    String::from_utf8(bytes).map_err(|cause| format!("it is not UTF-8: {}", cause.utf8_error()))
}
