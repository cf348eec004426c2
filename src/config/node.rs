//! A YAML document as a tree in which each node knows its file, line and column.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a node stands; lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The file, as the user named it.
    pub file: Arc<Path>,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Span {
    /// A path as this file means it: relative paths start in the file's own folder.
    pub fn beside(&self, path: &Path) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }
}

/// A value and where it stands.
#[derive(Clone)]
pub struct Node {
    /// Where.
    pub span: Span,
    /// What.
    pub value: Value,
}

/// What a node can be. `Debug` shows keys and kinds, never values: any of them may be a secret.
#[derive(Clone)]
pub enum Value {
    /// Nothing, `~`, `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Float(f64),
    /// Text; `${ENV}` was put in already.
    Text(String),
    /// `[a, b]`
    List(Vec<Node>),
    /// `{key: value}`, in the order of the file; each key with its span.
    Map(Vec<(Key, Node)>),
}

/// A key of a map, and where it stands.
#[derive(Clone, Debug)]
pub struct Key {
    /// Where.
    pub span: Span,
    /// The key.
    pub text: String,
}

impl Node {
    /// The value of `key`, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(known, _)| known.text == key).map(|(_, value)| value)
    }

    /// The entries of a map; none of anything else.
    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The node of `key`, else this one: where a problem with a perhaps missing key is shown.
    pub fn near(&self, key: &str) -> &Node {
        self.get(key).unwrap_or(self)
    }

    /// A problem at this node, whose path of keys is `key`.
    pub fn problem(&self, key: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem { span: self.span.clone(), key: key.into(), message: message.into() }
    }
}

impl Value {
    /// What it is, in a user's words.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::List(items) => f.debug_list().entries(items).finish(),
            Value::Map(entries) => {
                f.debug_map().entries(entries.iter().map(|(key, value)| (&key.text, value))).finish()
            }
            other => write!(f, "<{}>", other.kind()),
        }
    }
}

/// One finding of a check. All of them are reported at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub span: Span,
    /// The path of keys: `sources[0].redis.url`; empty for the whole file.
    pub key: String,
    /// What is wrong, what was expected, and the nearest known key.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { file, line, column } = &self.span;
        write!(f, "{}:{line}:{column}: ", file.display())?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}
