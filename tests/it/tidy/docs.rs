//! Rules on what people read: the README, the documents, the scripts.

use std::process::Command;

use super::{File, Finding, files, holds, none, root, tells_apart};

fn is_document(file: &File) -> bool {
    file.path.ends_with(".md")
}

/// A path of the machine where something was written helps nobody elsewhere.
fn no_machine_is_named(file: &File) -> Vec<Finding> {
    let homes = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/tmp/w", "t")];
    let lines = file.text.lines().enumerate();
    let named = lines.filter(|(_, line)| homes.iter().any(|home| line.contains(home)));
    named.map(|(n, line)| file.finding(n + 1, format!("a path of one machine: {}", line.trim()))).collect()
}

/// A line number in a document is wrong after the next change: name the function.
fn documents_name_no_lines(file: &File) -> Vec<Finding> {
    let counts = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let points =
        |line: &str| [".rs:", "#L", ".rs line "].iter().any(|mark| line.split(mark).skip(1).any(counts));
    let lines = file.text.lines().enumerate().filter(|(_, line)| is_document(file) && points(line));
    lines.map(|(n, _)| file.finding(n + 1, "name the function or the type, not the line")).collect()
}

/// What stands in backquotes or code blocks of a document: each with its line.
fn code_of(file: &File) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (n, line) in file.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            found.push((n + 1, line));
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(|code| (n + 1, code)));
        }
    }
    found
}

/// A relative link, or a script or folder of ours in backquotes, names something that exists.
fn what_documents_name_exists(file: &File) -> Vec<Finding> {
    if !is_document(file) {
        return Vec::new();
    }
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let links = file.text.lines().enumerate().flat_map(|(n, line)| {
        line.split("](").skip(1).filter_map(move |rest| Some((n + 1, rest.split_once(')')?.0)))
    });
    let is_local = |to: &str| !to.contains("://") && !to.starts_with('#') && !to.starts_with("mailto:");
    let linked =
        links.filter(|(_, to)| is_local(to)).map(|(n, to)| (n, root().join(folder).join(path_of(to)), to));
    let ours = ["dev/", "src/", "docs/", "schedules/", "tests/it/", ".ci/"];
    let is_ours =
        |code: &str| ours.iter().any(|room| code.starts_with(room)) && !code.contains(['<', '*', '{', '$']);
    let first = |code: &'_ str| code.split_whitespace().next().unwrap_or_default().to_owned();
    let quoted = code_of(file).into_iter().filter(|(_, code)| is_ours(code.trim()));
    let quoted = quoted.map(|(n, code)| (n, root().join(first(code)), code));
    let lost = linked.chain(quoted).filter(|(_, path, _)| !path.exists());
    lost.map(|(n, _, name)| file.finding(n, format!("`{name}` does not exist"))).collect()
}

/// A link without its anchor.
fn path_of(link: &str) -> &str {
    link.split('#').next().unwrap_or_default()
}

/// Every `tidekeeper COMMAND --flag` in a document, or in backquotes in the program (a hint, mostly), is one that the binary
/// knows.
fn commands_that_are_named_exist(file: &File) -> Vec<Finding> {
    if !is_document(file) && !file.is_source() || file.path == "CHANGELOG.md" {
        return Vec::new();
    }
    let spoken = code_of(file).into_iter().filter_map(|(n, code)| {
        let typed = code.trim().trim_start_matches("$ ").trim_start_matches("./");
        Some((n, typed.strip_prefix("tidekeeper ")?.split(['#', '|', '>', ';']).next()?))
    });
    spoken.filter_map(|(n, typed)| Some(file.finding(n, unknown(typed)?))).collect()
}

/// What the binary does not know of a command line, if anything.
fn unknown(typed: &str) -> Option<String> {
    let words: Vec<&str> = typed.split_whitespace().collect();
    let takes_a_value = ["--vault", "--config", "--server", "--log"];
    let mut command = Vec::new();
    let mut skip = false;
    for word in &words {
        match *word {
            _ if skip => skip = false,
            flag if takes_a_value.contains(&flag) => skip = true,
            flag if flag.starts_with('-') => {}
            name if command.len() < 2 && name.chars().all(|c| c.is_ascii_lowercase() || c == '-') => {
                command.push(name)
            }
            _ => break,
        }
    }
    let help = help(&command).or_else(|| help(command.get(..1)?));
    let Some(help) = help else { return Some(format!("`tidekeeper {}` is no command", command.join(" "))) };
    let flags = words.iter().filter_map(|word| word.split('=').next().filter(|flag| flag.starts_with("--")));
    let mut lost =
        flags.filter(|flag| !help.split_whitespace().any(|word| word.trim_end_matches(',') == *flag));
    lost.next().map(|flag| format!("`{flag}` is no flag of `tidekeeper {}`", command.join(" ")))
}

fn help(command: &[&str]) -> Option<String> {
    let binary = env!("CARGO_BIN_EXE_tidekeeper");
    let output = Command::new(binary).args(command).arg("--help").output().expect("the binary was built");
    (output.status.success() && !output.stdout.is_empty())
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn no_file_names_a_machine() {
    holds(no_machine_is_named);
    tells_apart(no_machine_is_named, "docs/a.md", "`$HOME/.cache` and homework/", concat!("see /ro", "ot/x"));
}

#[test]
fn documents_point_at_names_not_lines() {
    holds(documents_name_no_lines);
    tells_apart(documents_name_no_lines, "docs/a.md", "`src/a.rs: the clock`", "see src/a.rs:12");
}

#[test]
fn documents_name_what_exists() {
    holds(what_documents_name_exists);
    let rule = what_documents_name_exists;
    tells_apart(rule, "README.md", "[a](docs/invariants.md) `src/lib.rs`", "[a](docs/nothing.md)");
    tells_apart(rule, "docs/a.md", "[a](../README.md#x) <https://x.y>", "run `dev/nothing --fast`");
}

#[test]
fn commands_in_documents_and_hints_exist() {
    let readme = files().into_iter().find(|file| file.path == "README.md").expect("there is a README");
    assert!(readme.text.contains("tidekeeper serve"), "the rule has something to look at");
    none(files().iter().flat_map(commands_that_are_named_exist));
    let rule = commands_that_are_named_exist;
    tells_apart(rule, "README.md", "`tidekeeper backup redis-main --json`", "`tidekeeper bakcup redis-main`");
    tells_apart(rule, "README.md", "`tidekeeper --vault ./v backups`", "`tidekeeper restore x --yes-really`");
    tells_apart(
        rule,
        "src/a.rs",
        "\"`tidekeeper timeline {}` shows\"",
        "\"`tidekeeper timelines {}` shows\"",
    );
}
