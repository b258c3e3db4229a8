//! `scripts/reference`: the hypercall reference, made from the doc comments of `abi/src`.
//!
//! The crate `abi` is the specification; the page in the book is a view of it. A test fails when the two differ.

mod source;

use std::fmt::Write;
use std::process::ExitCode;

use miette::{Result, miette};
use regex::Regex;

use crate::files;
use crate::say;
use crate::workspace::Workspace;
use source::{Item, Kind, Member, Module};

/// The page, from the root of the checkout.
const PAGE: &str = "docs/src/hypercalls.md";
/// The enumeration whose variants have sections of their own.
const HYPERCALLS: &str = "Number";

/// `scripts/reference`: writes the page.
///
/// # Errors
/// When `abi/src` holds something that this does not understand, or a link that leads nowhere.
pub fn command(workspace: &Workspace) -> Result<ExitCode> {
    let text = page(workspace)?;
    files::write(&workspace.root.join(PAGE), text)?;
    say::step(format!("wrote {PAGE}"));
    Ok(ExitCode::SUCCESS)
}

/// What the page should be.
fn page(workspace: &Workspace) -> Result<String> {
    let folder = workspace.root.join("abi/src");
    let root = source::parse("", &files::read_text(&folder.join("lib.rs"))?)?;
    let mut modules = Vec::new();
    for name in root.submodules() {
        let text = files::read_text(&folder.join(format!("{name}.rs")))?;
        modules.push(source::parse(name, &text)?);
    }
    // In the order in which the crate introduces them.
    modules.sort_by_key(|module: &Module| root.doc.find(&format!("[`{}`]", module.name)));
    Book { modules }.render(&root)
}

struct Book {
    modules: Vec<Module>,
}

impl Book {
    fn render(&self, root: &Module) -> Result<String> {
        let mut out = String::from(
            "<!-- Made by scripts/reference from the doc comments in abi/src. Change those. -->\n\n\
             # Hypercall reference\n\n",
        );
        out += &self.text(&root.doc, root)?;
        for module in &self.modules {
            write!(out, "\n## `{}`\n\n{}", module.name, self.text(&module.doc, module)?).ok();
            self.values(&mut out, module, &module.items)?;
            for item in module.items.iter().filter(|item| item.has_section()) {
                self.section(&mut out, module, item)?;
            }
        }
        Ok(out)
    }

    /// The constants and aliases among `items`, as one table.
    fn values(&self, out: &mut String, module: &Module, items: &[Item]) -> Result<()> {
        let values: Vec<&Item> = items.iter().filter(|item| !item.has_section()).collect();
        if values.is_empty() {
            return Ok(());
        }
        *out += "\n| name | value | |\n|---|---|---|\n";
        for item in values {
            let (name, value) = (&item.name, &item.value);
            writeln!(out, "| `{name}` | {} | {} |", code(value), self.cell(&item.doc, module)?)
                .ok();
        }
        Ok(())
    }

    fn section(&self, out: &mut String, module: &Module, item: &Item) -> Result<()> {
        let path = format!("{}::{}", module.name, item.name);
        write!(out, "\n### `{path}`\n\n{}", self.text(&item.doc, module)?).ok();
        if item.name == HYPERCALLS {
            for member in &item.members {
                let doc = self.text(&member.doc, module)?;
                write!(out, "\n#### {}\n\nNumber {}. {doc}", member.name, member.value).ok();
            }
            return Ok(());
        }
        if item.kind == Kind::Module {
            return self.values(out, module, &item.items);
        }
        if !item.members.is_empty() && item.members.iter().all(|member| member.doc.is_empty()) {
            let names: Vec<_> = item.members.iter().map(|member| code(&member.name)).collect();
            writeln!(out, "\nIn this order: {}.", names.join(", ")).ok();
            return Ok(());
        }
        for kind in [Kind::Field, Kind::Variant, Kind::Constant] {
            let members: Vec<&Member> = item.members.iter().filter(|m| m.kind == kind).collect();
            let numbered = members.iter().any(|member| !member.value.is_empty());
            if members.is_empty() {
                continue;
            }
            let column = if kind == Kind::Field { "type" } else { "value" };
            *out += "\n";
            *out += &if numbered {
                format!("| name | {column} | |\n|---|---|---|\n")
            } else {
                "| name | |\n|---|---|\n".to_owned()
            };
            for member in members {
                let value =
                    if numbered { format!(" {} |", code(&member.value)) } else { String::new() };
                let doc = self.cell(&member.doc, module)?;
                writeln!(out, "| `{}` |{value} {doc} |", member.name).ok();
            }
        }
        Ok(())
    }

    /// A doc comment as paragraphs.
    fn text(&self, doc: &str, module: &Module) -> Result<String> {
        Ok(format!("{}\n", self.link(doc.trim(), module)?))
    }

    /// A doc comment in the cell of a table.
    fn cell(&self, doc: &str, module: &Module) -> Result<String> {
        let paragraphs: Vec<String> =
            doc.trim().split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
        Ok(self.link(&paragraphs.join("<br>"), module)?.replace('|', "\\|"))
    }

    /// Turns links to items into links within the page.
    fn link(&self, text: &str, module: &Module) -> Result<String> {
        let links = Regex::new(r"\[`([A-Za-z_0-9:]+)`\]").map_err(|error| miette!("{error}"))?;
        let mut out = String::new();
        let mut end = 0;
        for found in links.captures_iter(text) {
            let (Some(whole), path) = (found.get(0), &found[1]) else { continue };
            out += &text[end..whole.start()];
            let path = path.trim_start_matches("crate::");
            let anchor = self.anchor(path, module).ok_or_else(|| {
                miette!("a comment in abi/src/{}.rs links to {path}: no such item", module.name)
            })?;
            let shown = path.trim_start_matches("hypercall::").trim_start_matches("Number::");
            write!(out, "[`{shown}`](#{anchor})").ok();
            end = whole.end();
        }
        out += &text[end..];
        Ok(out)
    }

    /// The heading under which an item is described.
    fn anchor(&self, path: &str, from: &Module) -> Option<String> {
        let mut words = path.split("::").peekable();
        let named = self.modules.iter().find(|module| Some(&&*module.name) == words.peek());
        let module = match named {
            Some(module) => {
                words.next();
                module
            }
            None => from,
        };
        let Some(name) = words.next() else { return Some(module.name.clone()) };
        let item = module.items.iter().find(|item| item.name == name)?;
        let member = words.next();
        if member.is_some_and(|member| !item.contains(member)) {
            return None;
        }
        Some(match member {
            Some(member) if name == HYPERCALLS => member.to_lowercase(),
            _ if item.has_section() => format!("{}{}", module.name, name.to_lowercase()),
            _ => module.name.clone(),
        })
    }
}

/// A value or a type without what only Rust wants to know.
fn code(text: &str) -> String {
    let text = text.replace("core::sync::atomic::", "");
    let text = text.strip_prefix("Self(").and_then(|t| t.strip_suffix(')')).unwrap_or(&text);
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn checkout() -> Workspace {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf();
        Workspace { target: root.join("target"), tools: root.join("target/tools"), root }
    }

    #[test]
    fn the_page_in_the_book_is_current() {
        let workspace = checkout();
        let there = fs::read_to_string(workspace.root.join(PAGE)).unwrap_or_default();
        assert!(there == page(&workspace).unwrap(), "{PAGE} is stale: run scripts/reference");
    }

    #[test]
    fn every_hypercall_and_every_exit_is_on_the_page() {
        let page = page(&checkout()).unwrap();
        for number in (0..=u8::MAX).map_while(abi::hypercall::Number::from_abi) {
            assert!(page.contains(&format!("\n#### {number:?}\n\nNumber {}.", number as u8)));
        }
        for exit in abi::vcpu::Exit::ALL {
            assert!(page.contains(&format!("\n| `{exit:?}` | `{}` |", exit as u8)), "{exit:?}");
        }
    }

    #[test]
    fn links_lead_to_headings() {
        let book = Book {
            modules: vec![
                source::parse(
                    "cap",
                    "/// A.\npub mod own {\n    /// B.\n    pub const PD: u32 = 1;\n}\n",
                )
                .unwrap(),
            ],
        };
        let link = |text: &str| book.link(text, &book.modules[0]);
        assert_eq!(link("see [`own::PD`].").unwrap(), "see [`own::PD`](#capown).");
        assert_eq!(link("[`crate::cap`]").unwrap(), "[`cap`](#cap)");
        assert!(link("[`own::NOTHING`]").is_err());
        assert!(link("[`Nothing`]").is_err());
    }
}
