//! The start-up page, which every task reads before anything else.

use protocol::startup::{Client, MAGIC, MAX_CLIENTS, Startup, VERSION};

use super::Target;
use crate::input::{Bytes, Input};

/// Whose fields count: the rest are addresses and selectors that are passed on.
pub const TARGET: Target = Target { name: "startup", longest: 256, dictionary: &[], seeds, run };

fn seeds() -> Vec<Vec<u8>> {
    let page = Bytes::default().u64(MAGIC).u64(VERSION).u64(2);
    vec![page.clone().0, page.put(b"one").pad(24 + 32).put("zwölf".as_bytes()).0]
}

fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut page = Startup::new();
    (page.magic, page.version, page.client_count) = (input.u64(), input.u64(), input.u64());
    for client in &mut page.clients {
        client.name.iter_mut().for_each(|byte| *byte = input.byte());
    }
    assert_eq!(page.is_valid(), (page.magic, page.version) == (MAGIC, VERSION));
    assert_eq!(page.clients().len() as u64, page.client_count.min(MAX_CLIENTS as u64));
    for client in page.clients() {
        let name = client.name();
        let field = client.name.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = field.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        assert_eq!(name, text, "the name is what is text up to the first zero");
        assert_eq!(Client::new(name).name(), name);
    }
}
