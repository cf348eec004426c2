//! Rust text with its comments and the insides of its literals blanked: what is left can be searched for words and braces.

/// What the blanking is inside of.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Code,
    LineComment,
    BlockComment(usize),
    Text,
    RawText(usize),
}

/// The same text with comments and the insides of literals as spaces; every byte keeps its place.
pub fn blanked(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let (mut state, mut at) = (State::Code, 0);
    while at < chars.len() {
        let (next, width, shown) = step(state, &chars, at);
        let taken = chars[at..at + width].iter().copied();
        if shown {
            out.extend(taken)
        } else {
            out.extend(taken.flat_map(blank))
        }
        state = next;
        at += width;
    }
    out
}

/// As many spaces as the character has bytes; line ends stay.
fn blank(c: char) -> impl Iterator<Item = char> {
    std::iter::repeat_n(if c == '\n' { c } else { ' ' }, c.len_utf8())
}

/// From `at`: the state after, how many characters that took, and whether they are code.
fn step(state: State, chars: &[char], at: usize) -> (State, usize, bool) {
    let c = chars[at];
    let next = chars.get(at + 1).copied();
    match state {
        State::Code => code_step(chars, at),
        State::LineComment if c == '\n' => (State::Code, 1, true),
        State::LineComment => (state, 1, false),
        State::BlockComment(depth) => match (c, next) {
            ('/', Some('*')) => (State::BlockComment(depth + 1), 2, false),
            ('*', Some('/')) if depth == 1 => (State::Code, 2, false),
            ('*', Some('/')) => (State::BlockComment(depth - 1), 2, false),
            _ => (state, 1, false),
        },
        State::Text => match c {
            '\\' if next.is_some() => (state, 2, false),
            '"' => (State::Code, 1, true),
            _ => (state, 1, false),
        },
        State::RawText(hashes) => {
            let closes =
                c == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
            if closes { (State::Code, 1 + hashes, true) } else { (state, 1, false) }
        }
    }
}

fn code_step(chars: &[char], at: usize) -> (State, usize, bool) {
    let next = chars.get(at + 1).copied();
    let inside_a_word = at > 0 && is_word(chars[at - 1]);
    match chars[at] {
        '/' if next == Some('/') => (State::LineComment, 2, false),
        '/' if next == Some('*') => (State::BlockComment(1), 2, false),
        '"' => (State::Text, 1, true),
        'r' if !inside_a_word || chars[at - 1] == 'b' => {
            raw_text(chars, at).unwrap_or((State::Code, 1, true))
        }
        '\'' => match char_literal(chars, at) {
            // A brace between quotes is not a brace.
            Some(width) => (State::Code, width, false),
            None => (State::Code, 1, true),
        },
        _ => (State::Code, 1, true),
    }
}

/// `r"`, `r#"`: the start of a raw string, if one starts here.
fn raw_text(chars: &[char], at: usize) -> Option<(State, usize, bool)> {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    (chars.get(at + 1 + hashes) == Some(&'"')).then_some((State::RawText(hashes), 2 + hashes, true))
}

/// The width of the character literal that starts here; a lifetime is none.
fn char_literal(chars: &[char], at: usize) -> Option<usize> {
    if chars.get(at + 1) == Some(&'\\') {
        let end = chars[at + 3..].iter().take(12).position(|c| *c == '\'')?;
        return Some(end + 4);
    }
    (chars.get(at + 2) == Some(&'\'')).then_some(3)
}

/// Whether a character can be part of a name.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands in `code` as a whole word, in bytes.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The line on which byte `at` stands, from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The byte after the brace that closes the one at `open`.
pub fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(at + 1),
            b'}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

/// The code without what is compiled for tests only: each item after `#[cfg(test)]` is blanked.
pub fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(at) = out.find("#[cfg(test)]") {
        let body = out[at..].find(['{', ';']).map(|offset| at + offset);
        let end = match body {
            Some(open) if out.as_bytes()[open] == b'{' => closing(&out, open).unwrap_or(out.len()),
            Some(semicolon) => semicolon + 1,
            None => out.len(),
        };
        let spaces: String = out[at..end].chars().flat_map(blank).collect();
        out.replace_range(at..end, &spaces);
    }
    out
}
