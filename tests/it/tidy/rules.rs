//! Rules on one Rust file: sizes, time, panics, leftovers.

use super::code::{blanked, closing, line_of, without_tests, words};
use super::{File, Finding, holds, tells_apart};

const LONGEST_FUNCTION: usize = 70;
const LONGEST_FILE: usize = 600;
/// rustfmt wraps code at 110; what nothing can wrap (comments, texts, scripts) may run this far.
const LONGEST_LINE: usize = 132;

/// Every function as the byte where its `fn` stands, its name, and how many lines it has.
fn functions(code: &str) -> Vec<(usize, &str, usize)> {
    let mut found = Vec::new();
    for at in words(code, "fn") {
        let rest = &code[at + 2..];
        let name = rest.trim_start().split(|c| !super::code::is_word(c)).next().unwrap_or_default();
        let body = end_of_signature(rest).map(|offset| at + 2 + offset);
        // `fn(...)` is a type, and a `;` before the brace is a declaration.
        let Some(open) = body.filter(|open| !name.is_empty() && code.as_bytes()[*open] == b'{') else {
            continue;
        };
        let end = closing(code, open).unwrap_or(code.len());
        found.push((at, name, line_of(code, end - 1) - line_of(code, at) + 1));
    }
    found
}

/// Where the body begins, or the declaration ends: a `;` in `[u8; 4]` is neither.
fn end_of_signature(rest: &str) -> Option<usize> {
    let mut depth = 0i32;
    rest.bytes().position(|byte| {
        depth += i32::from(matches!(byte, b'(' | b'[')) - i32::from(matches!(byte, b')' | b']'));
        depth == 0 && matches!(byte, b'{' | b';')
    })
}

fn functions_are_short(file: &File) -> Vec<Finding> {
    functions(&file.code)
        .into_iter()
        .filter(|(_, _, lines)| *lines > LONGEST_FUNCTION)
        .map(|(at, name, lines)| {
            file.finding_at(at, format!("`{name}` has {lines} lines, more than {LONGEST_FUNCTION}"))
        })
        .collect()
}

fn files_are_short(file: &File) -> Vec<Finding> {
    let lines = file.text.lines().count();
    let long = file.is_rust() && lines > LONGEST_FILE;
    long.then(|| file.finding(lines, format!("{lines} lines, more than {LONGEST_FILE}")))
        .into_iter()
        .collect()
}

fn lines_are_short(file: &File) -> Vec<Finding> {
    let watched = file.is_rust() || file.path.starts_with("dev/") || file.path.starts_with(".ci/");
    let columns = file.text.lines().map(|line| line.chars().count()).enumerate();
    let wide = columns.filter(|(_, columns)| watched && *columns > LONGEST_LINE);
    wide.map(|(n, columns)| file.finding(n + 1, format!("{columns} columns"))).collect()
}

fn time_comes_from_the_clock(file: &File) -> Vec<Finding> {
    let may_ask = ["src/clock.rs", "tests/it/harness.rs"].contains(&file.path.as_str())
        || file.path.starts_with("tests/it/harness/")
        || file.path.starts_with("tests/it/tidy/");
    if may_ask {
        return Vec::new();
    }
    let clocks =
        ["SystemTime::now", "Instant::now", "Timestamp::now", "Zoned::now", "UtcDateTime::now", "Utc::now"];
    let waits = ["time::sleep", "time::timeout", "time::interval", "thread::sleep", "disallowed_methods"];
    let asked =
        clocks.iter().chain(&waits).flat_map(|word| words(&file.code, word).map(move |at| (at, word)));
    asked.map(|(at, word)| file.finding_at(at, format!("`{word}`: time comes from `Clock` only"))).collect()
}

fn nothing_is_left_over(file: &File) -> Vec<Finding> {
    let rules = file.path.starts_with("tests/it/tidy/");
    let notes = ["TODO", "FIXME", "XXX", "HACK"];
    let macros = ["todo!", "unimplemented!", "dbg!"];
    let looked_at = if rules { "" } else { file.text.as_str() };
    let noted = notes.iter().flat_map(|word| words(looked_at, word).map(|at| line_of(looked_at, at)));
    let called =
        macros.iter().flat_map(|word| file.code.match_indices(word)).map(|(at, _)| line_of(&file.code, at));
    noted.chain(called).map(|line| file.finding(line, "finish it, or write an issue")).collect()
}

/// In `src`, outside `#[cfg(test)]`: no `unwrap()`, and `expect` only with a message that says why it always holds.
/// "the configuration was checked" is an invariant; "failed to parse" is an error that wants handling.
fn panics_state_their_invariant(file: &File) -> Vec<Finding> {
    if !file.is_source() {
        return Vec::new();
    }
    let code = without_tests(&file.code);
    let unwraps = [".unwrap()", ".unwrap_err()", "panic!(", "unreachable!()"];
    let bare =
        unwraps.iter().flat_map(|word| code.match_indices(word)).map(|(at, word)| (at, word.to_owned()));
    let expects = code.match_indices(".expect(").filter_map(|(at, call)| {
        let argument = file.text[at + call.len()..].trim_start();
        let message = argument.strip_prefix('"')?.split('"').next()?;
        (!is_an_invariant(message)).then(|| (at, format!("expect({message:?})")))
    });
    let why = "state the invariant that makes this impossible, or return an Error";
    bare.chain(expects).map(|(at, what)| file.finding_at(at, format!("{what}: {why}"))).collect()
}

fn is_an_invariant(message: &str) -> bool {
    let complaint = ["failed", "fail", "could", "cannot", "unable", "error", "should", "invalid"];
    let mut words = message.split_whitespace();
    let first = words.next().unwrap_or_default().to_lowercase();
    !complaint.contains(&first.as_str()) && words.next().is_some()
}

#[test]
fn functions_have_at_most_70_lines() {
    holds(functions_are_short);
    let of = |lines: usize| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
    tells_apart(functions_are_short, "src/a.rs", &of(70), &of(71));
    tells_apart(functions_are_short, "src/a.rs", "type F = fn(u8) -> u8;\nconst S: &str = \"{\";", &of(99));
    let code = blanked(
        "fn a() { '{' } fn b();
fn c() {
// }
}",
    );
    assert_eq!(functions(&code), [(0, "a", 1), (23, "c", 3)]);
}

#[test]
fn files_have_at_most_600_lines() {
    holds(files_are_short);
    tells_apart(files_are_short, "src/a.rs", &"\n".repeat(600), &"\n".repeat(601));
}

#[test]
fn lines_have_at_most_132_columns() {
    holds(lines_are_short);
    tells_apart(lines_are_short, "src/a.rs", &"é".repeat(132), &"x".repeat(133));
    tells_apart(lines_are_short, "dev/demo", "", &"x".repeat(133));
}

#[test]
fn time_is_asked_of_the_clock_only() {
    holds(time_comes_from_the_clock);
    let rule = time_comes_from_the_clock;
    tells_apart(rule, "src/a.rs", "// Instant::now\nclock.sleep(d);", "let t = std::time::Instant::now();");
    tells_apart(rule, "src/a.rs", "", "#[allow(clippy::disallowed_methods)]");
    tells_apart(rule, "tests/it/a.rs", "\"Utc::now\"", "std::thread::sleep(d)");
}

#[test]
fn nothing_unfinished_is_left() {
    holds(nothing_is_left_over);
    let note = concat!("// TO", "DO: later");
    tells_apart(nothing_is_left_over, "src/a.rs", "// to do", note);
    tells_apart(nothing_is_left_over, "README.md", "", note);
    tells_apart(nothing_is_left_over, "src/a.rs", "\"todo!\"", concat!("fn f() { to", "do!() }"));
}

#[test]
fn panics_say_why_they_are_impossible() {
    holds(panics_state_their_invariant);
    let rule = panics_state_their_invariant;
    tells_apart(rule, "src/a.rs", "m.lock().expect(\"no holder panics\")", "x.unwrap()");
    tells_apart(rule, "src/a.rs", "x.unwrap_or(1); p.expect(b'x')?;", "x.expect(\"oops\")");
    tells_apart(
        rule,
        "src/a.rs",
        "#[cfg(test)]\nmod tests { fn f() { x.unwrap() } }",
        "x.expect(\"failed to read it\")",
    );
}
