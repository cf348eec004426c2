//! A YAML document as a tree in which each node knows its file, line and column.

use std::path::Path;
use std::sync::Arc;

/// Where a node stands; lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The file, as the user named it.
    pub file: Arc<Path>,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where.
    pub span: Span,
    /// What.
    pub value: Value,
}

/// What a node can be.
#[derive(Clone, Debug)]
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

/// One finding of a check. All of them are reported at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub span: Span,
    /// The path of keys: `sources[0].redis.url`.
    pub key: String,
    /// What is wrong, what was expected, and the nearest known key.
    pub message: String,
}
