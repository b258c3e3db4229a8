//! Reads what is public in a source file: names, values, doc comments.
//!
//! The source is formatted by rustfmt, so that lines and indentation say enough: whatever ends with an
//! opening bracket goes on up to the next line of the same indentation.

use miette::{Result, bail};

/// What an item or a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Constant,
    Alias,
    Enum,
    Struct,
    Module,
    Variant,
    Field,
}

/// A part of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub kind: Kind,
    pub name: String,
    /// Number of a variant, type of a field, value of a constant.
    pub value: String,
    pub doc: String,
}

/// Something public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub kind: Kind,
    pub name: String,
    pub value: String,
    pub doc: String,
    pub members: Vec<Member>,
    /// Of a module.
    pub items: Vec<Item>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    pub name: String,
    pub doc: String,
    pub items: Vec<Item>,
}

impl Module {
    /// The modules that have files of their own.
    pub fn submodules(&self) -> impl Iterator<Item = &str> {
        let files = |item: &&Item| item.kind == Kind::Module && item.items.is_empty();
        self.items.iter().filter(files).map(|item| item.name.as_str())
    }
}

impl Item {
    /// Whether it is more than a line in a table.
    pub fn has_section(&self) -> bool {
        !matches!(self.kind, Kind::Constant | Kind::Alias)
    }

    /// Whether a member or an item in it has that name.
    pub fn contains(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.name == name)
            || self.items.iter().any(|item| item.name == name)
    }
}

/// Reads a file.
///
/// # Errors
/// A public item of a form that is not expected here.
pub fn parse(name: &str, text: &str) -> Result<Module> {
    let lines: Vec<&str> = text.lines().collect();
    let doc: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("//!")).collect();
    Ok(Module { name: name.to_owned(), doc: join(&doc), items: parse_items(&lines)? })
}

/// Doc lines without the blank that follows the slashes.
fn join(lines: &[&str]) -> String {
    let lines: Vec<&str> =
        lines.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    lines.join("\n")
}

/// The first line of something and the lines in its brackets.
struct Piece<'a> {
    doc: String,
    head: &'a str,
    body: Vec<&'a str>,
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Cuts lines into pieces.
fn pieces<'a>(lines: &[&'a str]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let mut doc = Vec::new();
    let mut lines = lines.iter().copied();
    while let Some(line) = lines.next() {
        let head = line.trim();
        if let Some(text) = head.strip_prefix("///") {
            doc.push(text);
            continue;
        }
        if head.is_empty() || head.starts_with("//") || head.starts_with('#') {
            continue;
        }
        let mut body = Vec::new();
        if head.ends_with('=') {
            // A value that did not fit the line.
            body.extend(lines.by_ref().take(1));
        } else if head.ends_with(['{', '[', '(']) {
            let inside = |inner: &&str| inner.is_empty() || indentation(inner) > indentation(line);
            body.extend(lines.by_ref().take_while(inside));
        }
        pieces.push(Piece { doc: join(&doc), head, body });
        doc.clear();
    }
    pieces
}

fn parse_items(lines: &[&str]) -> Result<Vec<Item>> {
    let mut items: Vec<Item> = Vec::new();
    for piece in pieces(lines) {
        if let Some(of) = piece.head.strip_prefix("impl ").and_then(|head| head.strip_suffix(" {"))
        {
            // Implementations of traits and of types with lifetimes concern Rust, not the interface.
            if let Some(item) = items.iter_mut().find(|item| item.name == of) {
                item.members.extend(constants(&piece.body)?);
            }
            continue;
        }
        let Some(head) = piece.head.strip_prefix("pub ") else { continue };
        let (word, rest) = head.split_once(' ').unwrap_or((head, ""));
        let (word, rest) = match rest.split_once(' ') {
            Some(("fn", rest)) => ("fn", rest),
            _ => (word, rest),
        };
        let name = identifier(rest);
        let mut item = Item {
            kind: Kind::Constant,
            name: name.to_owned(),
            value: String::new(),
            doc: piece.doc,
            members: Vec::new(),
            items: Vec::new(),
        };
        match word {
            "use" | "fn" => continue,
            "const" => item.value = value(rest, &piece.body),
            "type" => (item.kind, item.value) = (Kind::Alias, value(rest, &piece.body)),
            "mod" => {
                item.kind = Kind::Module;
                item.items = parse_items(&piece.body)?;
            }
            "enum" => {
                item.kind = Kind::Enum;
                item.members = variants(&piece.body);
            }
            "struct" => {
                item.kind = Kind::Struct;
                item.members = fields(&piece.body);
            }
            _ => bail!("abi/src has a line of an unknown form: {:?}", piece.head),
        }
        // A view for Rust code, with nothing to see from outside.
        let hidden = rest.ends_with('{') && rest.contains("<'") || name.is_empty();
        if hidden {
            continue;
        }
        if item.doc.is_empty() && item.kind != Kind::Module {
            bail!("{name} in abi/src has no doc comment");
        }
        items.push(item);
    }
    Ok(items)
}

/// The name at the start of a text.
fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// What stands behind `=`; nothing for a list that takes many lines.
fn value(head: &str, body: &[&str]) -> String {
    let value = match head.split_once(" = ") {
        Some((_, value)) => value,
        None => body.first().map_or("", |line| line.trim()),
    };
    value.strip_suffix(';').unwrap_or_default().to_owned()
}

/// The constants of an implementation.
fn constants(lines: &[&str]) -> Result<Vec<Member>> {
    let items = parse_items(lines)?.into_iter();
    let constants = items.filter(|item| !item.value.is_empty());
    Ok(constants.map(|item| member(Kind::Constant, &item.name, &item.value, item.doc)).collect())
}

fn variants(lines: &[&str]) -> Vec<Member> {
    let variant = |piece: Piece<'_>| {
        let (name, value) = piece
            .head
            .trim_end_matches(',')
            .split_once(" = ")
            .unwrap_or_else(|| (piece.head.trim_end_matches(','), ""));
        member(Kind::Variant, name, value, piece.doc)
    };
    pieces(lines).into_iter().map(variant).collect()
}

fn fields(lines: &[&str]) -> Vec<Member> {
    let field = |piece: Piece<'_>| {
        let (name, ty) = piece.head.strip_prefix("pub ")?.trim_end_matches(',').split_once(": ")?;
        Some(member(Kind::Field, name, ty, piece.doc.clone()))
    };
    pieces(lines).into_iter().filter_map(field).collect()
}

fn member(kind: Kind, name: &str, value: &str, doc: String) -> Member {
    Member { kind, name: name.to_owned(), value: value.to_owned(), doc }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
//! Title.
//!
//! More.

use core::fmt;

/// A number
/// of things.
pub const COUNT: u32 = 1 << 3;
const HIDDEN: u32 = 1;

/// A choice.
#[repr(u8)]
pub enum Choice {
    /// First.
    One = 1,
    /// Second.
    Two = 2,
}

impl Choice {
    /// All.
    pub const ALL: [Self; 2] = [
        Self::One,
        Self::Two,
    ];
    /// The last.
    pub const LAST: Self = Self::Two;
    /// A function.
    pub const fn get(self) -> u32 {
        self as u32
    }
}

impl fmt::Display for Choice {
    fn fmt(&self) {}
}

/// A pair.
pub struct Pair {
    /// Left.
    pub left: u64,
    right: u64,
}

/// Names.
pub mod names {
    /// A name.
    pub const A: u32 =
        0x1234;
}
";

    #[test]
    fn public_items_are_found_with_values_and_comments() {
        let module = parse("m", SOURCE).unwrap();
        assert_eq!(module.doc, "Title.\n\nMore.");
        let names: Vec<_> = module.items.iter().map(|item| item.name.as_str()).collect();
        assert_eq!(names, ["COUNT", "Choice", "Pair", "names"]);
        let [count, choice, pair, names] = module.items.as_slice() else { panic!("not four") };
        assert_eq!((count.value.as_str(), count.doc.as_str()), ("1 << 3", "A number\nof things."));
        let members = |item: &Item| {
            item.members.iter().map(|m| format!("{}={}", m.name, m.value)).collect::<Vec<_>>()
        };
        assert_eq!(members(choice), ["One=1", "Two=2", "LAST=Self::Two"]);
        assert_eq!(choice.members[1].doc, "Second.");
        assert_eq!(members(pair), ["left=u64"]);
        assert_eq!(names.items[0].value, "0x1234");
    }

    #[test]
    fn what_is_public_has_a_comment() {
        assert!(parse("m", "pub const A: u32 = 1;\n").is_err());
        assert!(parse("m", "/// A.\npub static A: u32 = 1;\n").is_err());
    }
}
