//! The order of the rooms (`docs/architecture.md`): a room imports only from rooms below its own line.

use super::code::{is_word, without_tests, words};
use super::{File, Finding, files, holds, none, root, tells_apart};

/// The lines of the house, from the door to the cellar. Rooms on one line do not know each other.
const HOUSE: [&[&str]; 11] = [
    &["main"],
    &["cli", "console", "api"],
    &["app"],
    &["runbook"],
    &["drill", "capacity"],
    &["engine"],
    &["source"],
    &["vault"],
    &["config"],
    &["task"],
    &["kube", "aws"],
];
const CELLAR: [&str; 5] = ["clock", "error", "finding", "telemetry", "words"];

/// Words of one kind of source; other rooms must do without them.
const WORDS_OF_SOURCES: [&str; 8] =
    ["redis", "mongo", "rdb", "oplog", "argocd", "aurora", "kubernetes", "ebs"];
const ROOMS_WITHOUT_THEM: [&str; 6] = ["vault", "engine", "config", "task", "api", "cli"];

/// The line a room is on; the higher, the deeper.
fn line_of_room(room: &str) -> Option<usize> {
    let upstairs = HOUSE.iter().position(|rooms| rooms.contains(&room));
    upstairs.or_else(|| CELLAR.contains(&room).then_some(HOUSE.len()))
}

/// The modules from the crate's root to a file: `src/vault/store/fs.rs` is `[vault, store, fs]`.
fn modules(path: &str) -> Vec<&str> {
    let inner = path.strip_prefix("src/").and_then(|path| path.strip_suffix(".rs"));
    inner.map(|path| path.split('/').collect()).unwrap_or_default()
}

/// The paths below the crate's root that a file names: where, and their first two segments.
fn imports(file: &File) -> Vec<(usize, String, String)> {
    let code = without_tests(&file.code);
    let mut found = Vec::new();
    for at in words(&code, "crate") {
        let after = code[at + 5..].trim_start();
        match after.strip_prefix("::").map(str::trim_start) {
            Some(group) if group.starts_with('{') => {
                found.extend(of_group(group).map(|(first, second)| (at, first, second)));
            }
            Some(path) => {
                let (first, second) = first_two(path);
                found.push((at, first, second));
            }
            // `pub(crate)`
            None => {}
        }
    }
    let depth = modules(&file.path).len();
    let up = "super::".repeat(depth.max(1));
    let escapes = code.match_indices(&up).filter(|(at, _)| !code[..*at].ends_with("super::"));
    found.extend(escapes.map(|(at, _)| {
        let (first, second) = first_two(&code[at + up.len()..]);
        (at, first, second)
    }));
    found
}

/// `a::b::c` is `(a, b)`.
fn first_two(path: &str) -> (String, String) {
    let name = |text: &str| text.trim_start().chars().take_while(|c| is_word(*c)).collect::<String>();
    let first = name(path);
    let second = path[first.len()..].strip_prefix("::").map(name).unwrap_or_default();
    (first, second)
}

/// The paths in `{a::b, c::{d, e}}`.
fn of_group(group: &str) -> impl Iterator<Item = (String, String)> {
    let mut depth = 0;
    let mut starts = Vec::new();
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && (c == '{' || c == ',') {
            starts.push(at + 1);
        }
    }
    starts.into_iter().map(|at| first_two(group[at..].trim_start())).filter(|(first, _)| !first.is_empty())
}

fn rooms_know_only_those_below(file: &File) -> Vec<Finding> {
    let Some(own) =
        modules(&file.path).first().copied().filter(|_| file.is_source() && file.path != "src/lib.rs")
    else {
        return Vec::new();
    };
    let Some(line) = line_of_room(own) else {
        return vec![
            file.finding(1, format!("`{own}` is no room of the house: put it into one, or add it to HOUSE")),
        ];
    };
    let below = |room: &str| room == own || line_of_room(room).is_none_or(|other| other > line);
    let wrong = imports(file).into_iter().filter(|(_, room, _)| !below(room));
    wrong.map(|(at, room, _)| file.finding_at(at, format!("`{own}` may not know `{room}`"))).collect()
}

/// A source's folder is known to itself and to `app.rs`, which lists it.
fn sources_stay_apart(file: &File) -> Vec<Finding> {
    let own = modules(&file.path);
    if !file.is_source() || own == ["app"] {
        return Vec::new();
    }
    let kinds = kinds();
    let foreign = |room: &str, kind: &str| {
        room == "source" && kinds.iter().any(|known| known == kind) && own.get(1) != Some(&kind)
    };
    let wrong = imports(file).into_iter().filter(|(_, room, kind)| foreign(room, kind));
    wrong
        .map(|(at, _, kind)| file.finding_at(at, format!("only app.rs and the source itself know `{kind}`")))
        .collect()
}

/// The folders of `src/source`.
fn kinds() -> Vec<String> {
    let entries = std::fs::read_dir(root().join("src/source")).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.path().is_dir());
    folders.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn sources_keep_their_words(file: &File) -> Vec<Finding> {
    let room = modules(&file.path).first().copied().unwrap_or_default();
    if !ROOMS_WITHOUT_THEM.contains(&room) {
        return Vec::new();
    }
    let code = without_tests(&file.code).to_lowercase();
    let said = WORDS_OF_SOURCES.iter().flat_map(|word| code.match_indices(word));
    // `border` is not an RDB, and `kubernetes_job` is an executor.
    let own_word = |at: usize, word: &str| {
        let short = word.len() == 3;
        let alone = !code[..at].ends_with(char::is_alphanumeric)
            && !code[at + word.len()..].starts_with(char::is_alphanumeric);
        (alone || !short)
            && !code[at..].starts_with("kubernetes_job")
            && !code[at..].starts_with("kubernetesjob")
    };
    let wrong = said.filter(|(at, word)| own_word(*at, word));
    wrong.map(|(at, word)| file.finding_at(at, format!("`{word}` belongs into src/source"))).collect()
}

/// A file that no `mod` names is not compiled, and nobody notices.
fn unreachable_files(files: &[File]) -> Vec<Finding> {
    let named = |file: &File| {
        let (folder, name) = file.path.trim_end_matches(".rs").rsplit_once('/')?;
        let parents = match folder {
            "src" => vec!["src/lib.rs".to_owned(), "src/main.rs".to_owned()],
            "tests/it" => vec!["tests/it/main.rs".to_owned()],
            _ => vec![format!("{folder}.rs")],
        };
        let declares = |parent: &File| words(&parent.code, &format!("mod {name}")).next().is_some();
        Some(files.iter().filter(|other| parents.contains(&other.path)).any(declares))
    };
    let roots = ["src/lib.rs", "src/main.rs", "tests/it/main.rs"];
    let modules = files
        .iter()
        .filter(|file| file.is_source() || (file.is_rust() && file.path.starts_with("tests/it/")));
    let lost = modules.filter(|file| !roots.contains(&file.path.as_str()) && named(file) != Some(true));
    lost.map(|file| file.finding(1, "no `mod` in the file beside its folder names it")).collect()
}

fn folders_stand_beside_their_file(file: &File) -> Vec<Finding> {
    let misplaced = file.path.ends_with("/mod.rs");
    misplaced.then(|| file.finding(1, "write `x.rs` beside the folder `x/`")).into_iter().collect()
}

#[test]
fn rooms_import_only_from_below() {
    holds(rooms_know_only_those_below);
    let rule = rooms_know_only_those_below;
    tells_apart(rule, "src/vault/store/fs.rs", "use crate::error::Error;", "use crate::source::Source;");
    tells_apart(
        rule,
        "src/vault/store/fs.rs",
        "use super::super::layout;",
        "use super::super::super::engine::Run;",
    );
    tells_apart(rule, "src/task.rs", "// crate::vault", "fn f() { crate::vault::f() }");
    tells_apart(
        rule,
        "src/api/runs.rs",
        "use crate::{app::App, engine::Run};",
        "use crate::{app::App, cli};",
    );
    tells_apart(rule, "src/clock.rs", "pub(crate) fn f() {}", "use crate::error::Error;");
    tells_apart(rule, "src/engine.rs", "", "use crate::{vault::{a, b}, api::c};");
    tells_apart(rule, "src/vault.rs", "", "#[cfg(test)]\nuse crate::vault::a;\nuse crate::source::b;");
    tells_apart(rule, "src/source.rs", "", "use crate::engine::Run;");
    assert!(!rule(&File::new("src/attic.rs", "")).is_empty(), "a room that the house does not have");
}

#[test]
fn sources_do_not_know_each_other() {
    holds(sources_stay_apart);
    let rule = sources_stay_apart;
    let redis = "use crate::source::redis::rdb;";
    tells_apart(rule, "src/source/other/backup.rs", "use crate::source::Slice;", redis);
    tells_apart(rule, "src/cli/backup.rs", "use crate::source::Source;", redis);
    for knows_it in ["src/app.rs", "src/source/redis/backup.rs"] {
        assert_eq!(rule(&File::new(knows_it, redis)), []);
    }
}

#[test]
fn words_of_a_source_stay_in_its_folder() {
    holds(sources_keep_their_words);
    let rule = sources_keep_their_words;
    tells_apart(
        rule,
        "src/vault/writer.rs",
        "// of redis\nlet border = 1;",
        "struct RedisThing; fn redis_url() {}",
    );
    tells_apart(rule, "src/engine/run.rs", "KubernetesJob; kubernetes_job", "let rdb = 1;");
}

#[test]
fn every_file_is_compiled() {
    let files = files();
    none(unreachable_files(&files));
    let tree = |lib: &str| {
        vec![File::new("src/lib.rs", lib), File::new("src/a.rs", ""), File::new("src/a/b.rs", "")]
    };
    assert_eq!(unreachable_files(&tree("pub mod a;")).len(), 1, "b is in no file");
    assert_eq!(unreachable_files(&tree("// mod a;")).len(), 2, "a comment compiles nothing");
    holds(folders_stand_beside_their_file);
    assert_eq!(folders_stand_beside_their_file(&File::new("src/a/mod.rs", "")).len(), 1);
}
