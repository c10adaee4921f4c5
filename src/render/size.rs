//! How large a file is as a part of a bundle.

use crate::api::{BundleFile, BundleItem};

/// The size of the file as a part of a bundle's JSON, in bytes; or a larger number, where even that is within the limit.
pub(super) fn of(file: &BundleFile, limit: usize) -> usize {
    const ESCAPED: usize = r"\u0000".len();
    // Names of keys, the generation, and signs between them come to far less than 256 bytes for each item.
    let at_most = 256 * (file.items.len() + 1) + texts(file).map(str::len).sum::<usize>() * ESCAPED;
    if at_most <= limit { at_most } else { in_json(file) }
}

fn texts(file: &BundleFile) -> impl Iterator<Item = &str> {
    file.items.iter().flat_map(|item| [item.name.as_str(), &item.rule_name, &item.text])
}

/// The size of the file as JSON, without writing its texts.
fn in_json(file: &BundleFile) -> usize {
    let without_texts = |item: &BundleItem| BundleItem { generation: item.generation, ..BundleItem::default() };
    let frame = BundleFile { hash: file.hash.clone(), items: file.items.iter().map(without_texts).collect() };
    // A struct of texts and numbers can always be written.
    let frame = serde_json::to_vec(&frame).unwrap_or_default();
    frame.len() + texts(file).map(in_quotes).sum::<usize>()
}

/// The size of a text within the quotes of JSON.
fn in_quotes(text: &str) -> usize {
    let bytes = text.as_bytes();
    let usual = memchr::memchr3_iter(b'"', b'\\', b'\n', bytes).count();
    let is_odd = |byte: u8| byte < b' ' && byte != b'\n';
    // Without a way out in between, many bytes are looked at in one step.
    let odd = if bytes.iter().fold(false, |any, byte| any | is_odd(*byte)) {
        let more = |byte: &u8| if matches!(byte, b'\t' | b'\r' | 0x08 | 0x0c) { 1 } else { r"u0000".len() };
        bytes.iter().filter(|byte| is_odd(**byte)).map(more).sum()
    } else {
        0
    };
    bytes.len() + usual + odd
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_what_is_written(
            items in proptest::collection::vec((any::<i64>(), "[\\x00-\\x7f]{0,9}", "[\\x00-\\x7fé]{0,9}", any::<String>()), 0..4),
        ) {
            let item = |(generation, name, rule_name, text)| BundleItem { name, generation, rule_name, text };
            let file = BundleFile::new(items.into_iter().map(item).collect());
            let written = serde_json::to_string(&file).unwrap().len();
            prop_assert_eq!(in_json(&file), written);
            prop_assert_eq!(of(&file, 0), written);
            prop_assert!(of(&file, usize::MAX) >= written);
        }
    }
}
