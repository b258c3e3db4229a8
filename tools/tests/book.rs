//! The documentation against the checkout: quoted code is in its source, links lead somewhere, and every page is in
//! the table of contents.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages of the book, and the pages beside the README.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md"), root().join("SPECIFICATION.md")];
    for entry in fs::read_dir(root().join("docs/src")).unwrap() {
        pages.push(entry.unwrap().path());
    }
    assert!(pages.len() > 10);
    pages
}

/// The anchor of a heading, as mdBook and GitHub make it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

#[test]
fn the_first_vmm_quotes_the_example() {
    let page = read(&root().join("docs/src/first-vmm.md"));
    let source = read(&root().join("vmm-userspace/examples/hello_vmm.rs"));
    let blocks: Vec<&str> = page
        .split("```rust\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("a block ends").0)
        .collect();
    assert!(blocks.len() > 4);
    for block in blocks {
        assert!(source.contains(block), "not in hello_vmm.rs:\n{block}");
    }
    assert!(source.lines().count() <= 100, "the page says fewer than a hundred lines");
}

#[test]
fn links_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    for page in pages() {
        let text = read(&page);
        for target in link.captures_iter(&text).map(|found| found[1].to_owned()) {
            if target.contains("://") {
                continue;
            }
            let (path, fragment) = target.split_once('#').unwrap_or((&target, ""));
            let path =
                if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(path.exists(), "{}: {target}", page.display());
            if !fragment.is_empty() {
                let headings = read(&path);
                let mut headings = headings.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#')) == fragment);
                assert!(found, "{}: {target}", page.display());
            }
        }
    }
}

#[test]
fn the_table_of_contents_has_every_page() {
    let contents = read(&root().join("docs/src/SUMMARY.md"));
    for page in pages().iter().filter(|page| page.starts_with(root().join("docs"))) {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(name == "SUMMARY.md" || contents.contains(&format!("({name})")), "{name}");
    }
}
