//! Numbers as people read them: sizes, and how many of a thing.

const KIB: f64 = 1024.0;

/// `17 B`, `1.2 GiB`.
pub fn bytes(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        // 1023.95 would be shown as 1024.0 of the smaller unit.
        if size < 1023.95 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") };
        }
        size /= KIB;
    }
    format!("{size:.1} TiB")
}

/// `1 index`, `2 indexes`, `0 entries`.
pub fn counted(number: u64, one: &str) -> String {
    if number == 1 {
        return format!("1 {one}");
    }
    let is_vowel = |letter: char| "aeiou".contains(letter);
    match one.strip_suffix('y') {
        Some(stem) if !stem.ends_with(is_vowel) => format!("{number} {stem}ies"),
        _ if one.ends_with(['s', 'x']) => format!("{number} {one}es"),
        _ => format!("{number} {one}s"),
    }
}
