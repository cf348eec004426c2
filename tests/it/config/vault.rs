//! Mistakes that do not stop whoever needs the vault alone.

use tidekeeper::config::{Place, load_vault};

/// What is wrong beside the vault, and is only told; `None` if it stops everybody.
fn told(text: &str) -> Option<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("tidekeeper.yaml");
    std::fs::write(&file, text).expect("writable");
    let (config, wrong) = super::with_known(|known| load_vault(&file, known)).ok()?;
    assert_eq!(config.vault, Place::Fs { path: folder.path().join("v"), single_host: false });
    assert!(config.sources.is_empty() && config.targets.is_empty() && config.schedules.is_empty());
    Some(wrong.map(|error| error.to_string()).unwrap_or_default())
}

const VAULT: &str = "vault: { fs: { path: v } }\n";

#[test]
fn mistakes_beside_the_vault_are_told() {
    assert_eq!(told(VAULT).as_deref(), Some(""));
    for (text, word) in [
        (
            "sources:\n  - { name: a, redis: { ulr: u } }\n  - { name: b, redis: { url: u } }",
            "did you mean `url`?",
        ),
        ("sources:\n  - { name: a, redis: { url: '${NOBODY}' } }", "no variable NOBODY"),
        ("targets:\n  - { name: a, name: b }", "`name` was given in line 3 already"),
        ("schedules: nowhere/", "cannot read"),
    ] {
        let told = told(&format!("{VAULT}{text}\n")).unwrap_or_else(|| panic!("{text} stops everybody"));
        assert!(told.contains(word), "{text}: {told}");
    }
}

#[test]
fn what_may_be_about_the_vault_stops_everybody() {
    for text in [
        "sources: []",
        "vault: { fs: { path: v, pth: w } }",
        "vault: { fs: { path: '${NOBODY}' } }",
        "vault: { fs: { path: v } }\nsources: []\nvault: { fs: { path: w } }",
        "vault: { fs: { path: v } }\nsources: [",
        "vault: { fs: { path: v } }\nencryption: { recipients: ['${NOBODY}'] }",
        "vault: { fs: { path: v } }\nlimits: { spool_max: 1 }",
        "vault: { fs: { path: v } }\nencrypton: { recipients: [] }",
    ] {
        assert_eq!(told(text), None, "{text}");
    }
}
