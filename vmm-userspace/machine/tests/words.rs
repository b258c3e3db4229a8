//! What runs unprivileged, and its contract with the kernel, belong to no vendor: their words appear nowhere, not in comments either.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The words, in halves: this file is one of those that are looked at.
const WORDS: [(&str, &str); 9] = [
    ("vm", "x"),
    ("sv", "m"),
    ("vm", "cs"),
    ("vm", "cb"),
    ("ep", "t"),
    ("np", "t"),
    ("vt", "x"),
    ("am", "d"),
    ("int", "el"),
];

/// Whether a text has one of the words, whatever is around it but letters and digits.
fn vendor_word(text: &str) -> Option<String> {
    // The hyphenated one is one word, too.
    let text = text.to_lowercase().replace("vt-", "vt");
    let banned = |word: &str| WORDS.iter().any(|(a, b)| word.strip_prefix(a) == Some(*b));
    text.split(|c: char| !c.is_ascii_alphanumeric()).find(|word| banned(word)).map(str::to_owned)
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_vendor_is_named() {
    let unprivileged = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = vec![];
    sources(unprivileged, &mut files);
    sources(&unprivileged.with_file_name("abi"), &mut files);
    assert!(files.len() > 100, "only {} files", files.len());
    let mut found = vec![];
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = vendor_word(line) {
                found.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "vendors are named:\n{}", found.join("\n"));
}

#[test]
fn words_are_found() {
    for (a, b) in WORDS {
        assert!(vendor_word(&format!("// {a}{b}.")).is_some());
        assert!(vendor_word(&format!("fn {a}{b}_exit()")).is_some());
        assert!(vendor_word(&format!("{}{}", a.to_uppercase(), b.to_uppercase())).is_some());
        // Part of another word.
        assert!(vendor_word(&format!("a{a}{b}s {a}{b}64")).is_none());
    }
    assert!(vendor_word(&format!("{}-{}", "vt", "x")).is_some());
    assert!(vendor_word(&format!("{}{}-V", "AM", "D")).is_some());
}
