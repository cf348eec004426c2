//! Text to nodes: one YAML 1.2 document, `${ENV}` put in, each key once, within bounds.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::node::{Key, Node, Problem, Span, Value};

/// How deep lists and maps may be nested: far more than any configuration needs, far less than a stack has.
const DEPTH_MAX: usize = 64;

/// How much a document may hold, its aliases written out, in bytes of text plus [`NODE_COST`] for each node:
/// a few hundred bytes of nested aliases can otherwise ask for gigabytes.
const COST_MAX: usize = 16 << 20;

/// What a node costs beside its text; about its size in memory.
const NODE_COST: usize = 64;

/// Says what a variable of the environment holds.
pub type Env<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Reads one document. There is no node when the text is not YAML or asks for too much; there can be problems
/// beside one.
pub fn parse(file: &Path, text: &str, env: &Env<'_>) -> (Option<Node>, Vec<Problem>) {
    let mut tree = Tree {
        file: file.into(),
        env,
        open: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        cost: 0,
        problems: Vec::new(),
    };
    let node = match tree.read(text) {
        Ok(()) => tree.root.or(Some(Node { span: tree_start(file), value: Value::Null })),
        Err(problem) => {
            tree.problems.push(problem);
            None
        }
    };
    (node, tree.problems)
}

fn tree_start(file: &Path) -> Span {
    Span { file: file.into(), line: 1, column: 1 }
}

/// A tree under construction.
struct Tree<'a> {
    file: Arc<Path>,
    env: &'a Env<'a>,
    /// Lists and maps that have not ended, the innermost last.
    open: Vec<Open>,
    root: Option<Node>,
    /// Anchored nodes by the parser's number, and what a copy costs.
    anchors: HashMap<usize, (Node, usize)>,
    cost: usize,
    problems: Vec<Problem>,
}

/// A list or map that has not ended.
struct Open {
    span: Span,
    anchor: usize,
    /// What the tree cost when it began.
    cost: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, next: Next },
}

/// What a map takes next.
enum Next {
    Key,
    ValueOf(Key),
    /// The value of a key that cannot be used.
    Dropped,
}

impl Tree<'_> {
    fn read(&mut self, text: &str) -> Result<(), Problem> {
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|cause| {
                let message = format!("this is not YAML: {}", cause.info());
                Problem { span: self.span(*cause.marker()), key: String::new(), message }
            })?;
            let span = self.span(span.start);
            if matches!(event, Event::DocumentStart(_)) {
                documents += 1;
                if documents > 1 {
                    return Err(whole(
                        span,
                        "a second document begins here; expected one document in a file",
                    ));
                }
            }
            self.take(event, span)?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.scalar(&text, style, tag.as_deref(), anchor, span)
            }
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::SequenceStart(anchor, _) => self.begin(span, anchor, Inside::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.begin(span, anchor, Inside::Map { entries: Vec::new(), next: Next::Key })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            _ => Ok(()),
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        anchor: usize,
        span: Span,
    ) -> Result<(), Problem> {
        self.pay(NODE_COST + text.len(), &span)?;
        if self.takes_key() {
            self.key(text, span);
            return Ok(());
        }
        let value = if text.contains("${") {
            let filled = substitute(text, self.env);
            Value::Text(filled.unwrap_or_else(|message| {
                self.problems.push(whole(span.clone(), message));
                String::new()
            }))
        } else if style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix == "str") {
            Value::Text(text.to_owned())
        } else {
            resolve(text)
        };
        let cost = NODE_COST + text.len();
        self.put(Node { span, value }, anchor, cost)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Problem> {
        let Some((node, cost)) = self.anchors.get(&anchor) else {
            return Err(whole(span, "an anchor cannot stand inside itself"));
        };
        let (value, cost) = (node.value.clone(), *cost);
        self.pay(cost, &span)?;
        if self.takes_key() {
            match value {
                Value::Text(text) => self.key(&text, span),
                _ => self.bad_key(span),
            }
            return Ok(());
        }
        self.put(Node { span, value }, 0, cost)
    }

    fn begin(&mut self, span: Span, anchor: usize, inside: Inside) -> Result<(), Problem> {
        if self.open.len() == DEPTH_MAX {
            return Err(whole(span, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        let cost = self.cost;
        self.pay(NODE_COST, &span)?;
        self.open.push(Open { span, anchor, cost, inside });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Problem> {
        let Some(Open { span, anchor, cost, inside }) = self.open.pop() else { return Ok(()) };
        let value = match inside {
            Inside::List(items) => Value::List(items),
            Inside::Map { entries, .. } => Value::Map(entries),
        };
        if self.takes_key() {
            self.bad_key(span);
            return Ok(());
        }
        let cost = self.cost - cost;
        self.put(Node { span, value }, anchor, cost)
    }

    /// Puts a finished node where the innermost open list or map takes it.
    fn put(&mut self, node: Node, anchor: usize, cost: usize) -> Result<(), Problem> {
        if anchor > 0 {
            self.pay(cost, &node.span)?;
            self.anchors.insert(anchor, (node.clone(), cost));
        }
        match self.open.last_mut().map(|open| &mut open.inside) {
            None => self.root = Some(node),
            Some(Inside::List(items)) => items.push(node),
            Some(Inside::Map { entries, next }) => {
                if let Next::ValueOf(key) = std::mem::replace(next, Next::Key) {
                    entries.push((key, node));
                }
            }
        }
        Ok(())
    }

    fn takes_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { inside: Inside::Map { next: Next::Key, .. }, .. }))
    }

    fn key(&mut self, text: &str, span: Span) {
        let Some(Open { inside: Inside::Map { entries, next }, .. }) = self.open.last_mut() else { return };
        match entries.iter().find(|(known, _)| known.text == text) {
            Some((first, _)) => {
                let message = format!("key `{text}` was given in line {} already", first.span.line);
                self.problems.push(whole(span, message));
                *next = Next::Dropped;
            }
            None => *next = Next::ValueOf(Key { span, text: text.to_owned() }),
        }
    }

    fn bad_key(&mut self, span: Span) {
        self.problems.push(whole(span, "a key must be text"));
        if let Some(Open { inside: Inside::Map { next, .. }, .. }) = self.open.last_mut() {
            *next = Next::Dropped;
        }
    }

    fn pay(&mut self, cost: usize, span: &Span) -> Result<(), Problem> {
        self.cost += cost;
        if self.cost > COST_MAX {
            return Err(whole(span.clone(), "this file, its aliases written out, is too large to be meant"));
        }
        Ok(())
    }

    fn span(&self, at: Marker) -> Span {
        Span { file: self.file.clone(), line: at.line().max(1), column: at.col() + 1 }
    }
}

/// A problem of the text, before there are keys to name.
fn whole(span: Span, message: impl Into<String>) -> Problem {
    Problem { span, key: String::new(), message: message.into() }
}

/// What a plain scalar means in YAML's core schema.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let whole = match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
        (Some(hex), _) => i64::from_str_radix(hex, 16).ok(),
        (_, Some(octal)) => i64::from_str_radix(octal, 8).ok(),
        _ => text.parse().ok(),
    };
    if let Some(number) = whole {
        return Value::Integer(number);
    }
    let numeric = |b: u8| b.is_ascii_digit() || b"+-.eE".contains(&b);
    match text.parse() {
        Ok(number) if text.bytes().all(numeric) => Value::Float(number),
        _ => Value::Text(text.to_owned()),
    }
}

/// Puts the environment's values in for `${NAME}`; `$${` is a plain `${`.
fn substitute(text: &str, env: &Env<'_>) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            filled.push_str(&rest[..at - 1]);
            filled.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        filled.push_str(&rest[..at]);
        let (name, after) =
            rest[at + 2..].split_once('}').ok_or("`${` without its `}`; write `$${` for a plain one")?;
        filled.push_str(&variable(name, env)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn variable(name: &str, env: &Env<'_>) -> Result<String, String> {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || !name.bytes().all(letter) || name.as_bytes()[0].is_ascii_digit() {
        return Err(format!(
            "`${{{name}}}` does not name a variable of the environment; expected letters, digits and `_`, \
             or `$${{` for a plain `${{`"
        ));
    }
    env(name).ok_or_else(|| format!("the environment has no variable {name}"))
}
