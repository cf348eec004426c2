//! How results look: colours where somebody sees them, tables whose columns stand in line.

use std::fmt::Write;
use std::io::IsTerminal;

use jiff::Timestamp;

/// How results look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Whether to colour: a terminal, and nobody said NO_COLOR.
    pub colour: bool,
    /// What ages are counted from.
    pub now: Timestamp,
}

impl Look {
    /// As fits the standard output of this process.
    pub fn of_stdout(now: Timestamp) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let asked_not = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Look { colour: std::io::stdout().is_terminal() && !dumb && !asked_not, now }
    }

    /// Colours `text`.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        match tone.code() {
            Some(code) if self.colour && !text.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

/// What a text means to whoever skims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Look at it some time.
    Warning,
    /// Look at it now.
    Bad,
    /// Read it last.
    Dim,
    /// Read it first.
    Strong,
}

impl Tone {
    /// The parameter of the terminal's `SGR` sequence.
    fn code(self) -> Option<u8> {
        match self {
            Tone::Plain => None,
            Tone::Good => Some(32),
            Tone::Warning => Some(33),
            Tone::Bad => Some(31),
            Tone::Dim => Some(2),
            Tone::Strong => Some(1),
        }
    }
}

/// One field of a table.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    /// Text, at the left.
    pub fn text(text: impl Into<String>) -> Self {
        Cell { text: text.into(), ..Cell::default() }
    }

    /// A number, at the right.
    pub fn number(text: impl Into<String>) -> Self {
        Cell { text: text.into(), right: true, ..Cell::default() }
    }

    /// In a tone.
    pub fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }
}

/// Rows whose columns stand in line. Without rows it shows nothing but its heads.
#[derive(Clone, Debug)]
pub struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these heads.
    pub fn new<const N: usize>(heads: [&'static str; N]) -> Self {
        Table { heads: heads.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: a cell for each head.
    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.to_vec());
    }

    /// The table, each line ended.
    pub fn show(&self, look: &Look) -> String {
        let column = |n: usize| self.rows.iter().filter_map(move |row| row.get(n));
        let width = |n: usize| column(n).map(|cell| cell.text.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> =
            self.heads.iter().enumerate().map(|(n, head)| width(n).max(head.chars().count())).collect();
        let first = |n: usize| column(n).next().is_some_and(|cell| cell.right);
        let heads = self.heads.iter().enumerate().map(|(n, head)| Cell {
            text: (*head).to_owned(),
            tone: Tone::Dim,
            right: first(n),
        });
        let mut shown = line(&heads.collect::<Vec<_>>(), &widths, look);
        for row in &self.rows {
            shown.push_str(&line(row, &widths, look));
        }
        shown
    }
}

fn line(cells: &[Cell], widths: &[usize], look: &Look) -> String {
    let mut line = String::new();
    let last = cells.len().saturating_sub(1);
    for (n, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let blank = width.saturating_sub(cell.text.chars().count());
        let (before, after) = if cell.right { (blank, 0) } else { (0, if n == last { 0 } else { blank }) };
        let text = look.paint(cell.tone, &cell.text);
        let _ = write!(line, "{:before$}{text}{:after$}", "", "");
        if n < last {
            line.push_str("  ");
        }
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

/// Two columns without heads: what a thing is, and what it is worth. Empty values are left out.
#[derive(Clone, Debug, Default)]
pub struct Facts(Vec<(String, String)>);

impl Facts {
    /// Adds a fact, unless there is nothing to say.
    pub fn add(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.0.push((name.to_owned(), value));
        }
    }

    /// The facts, each line ended.
    pub fn show(&self, look: &Look) -> String {
        let width = self.0.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let mut shown = String::new();
        for (name, value) in &self.0 {
            let blank = width - name.chars().count();
            let _ = writeln!(shown, "{}{:blank$}  {value}", look.paint(Tone::Dim, name), "");
        }
        shown
    }
}
