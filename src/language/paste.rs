//! Falco's lists: not a part of the language, but text that is pasted over words of conditions before they are read.
//!
//! It happens wherever the name of a list stands between blanks, parentheses, commas and equals signs: in lists, but in
//! quoted texts, in place of macros and of event types too.

use super::diagnostic::Span;

/// Bytes that a condition may come to by pasting.
pub(crate) const PASTED_BYTES: usize = 4 * 1024 * 1024;

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

const fn is_delimiter(byte: u8) -> bool {
    is_blank(byte) || matches!(byte, b'(' | b')' | b',' | b'=')
}

/// An item as Falco pastes it.
pub(crate) fn pasted_item(item: &str) -> String {
    if item.contains(' ') && !item.starts_with(['"', '\'']) { format!("\"{item}\"") } else { item.to_owned() }
}

/// Items as one text.
pub(crate) fn pasted_items<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for item in items {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(item);
    }
    text
}

/// A condition over which lists are pasted, and where each byte of it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Pasted {
    pub(crate) text: String,
    /// The byte of the original text; `None` while nothing was pasted.
    origin: Option<Vec<u32>>,
}

impl Pasted {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), origin: None }
    }

    /// Where in the original text it is.
    pub(crate) fn original(&self, span: Span) -> Span {
        let Some(origin) = &self.origin else { return span };
        let at = |place: u32| origin.get(place as usize).or(origin.last()).copied().unwrap_or_default();
        Span { start: at(span.start), end: at(span.end).max(at(span.start)) }
    }

    /// Pastes a list. Says whether its name was there.
    pub(crate) fn paste(&mut self, name: &str, items: &str) -> bool {
        if name.is_empty() {
            return false;
        }
        let Some(first) = self.text.find(name) else { return false };
        let input = std::mem::take(&mut self.text);
        let old = self.origin.take();
        let from = |at: usize| old.as_ref().map_or(at as u32, |old| old.get(at).copied().unwrap_or_default());
        let mut out = String::with_capacity(input.len() + items.len());
        let mut origin: Vec<u32> = Vec::with_capacity(input.len() + items.len() + 1);
        let bytes = input.as_bytes();
        let (mut used, mut done, mut search) = (false, 0, first);
        while let Some(start) = input.get(search..).and_then(|rest| rest.find(name)).map(|at| search + at) {
            let end = start + name.len();
            let before = start == 0 || start == done || is_delimiter(bytes[start - 1]);
            let after = bytes.get(end).is_none_or(|byte| is_delimiter(*byte));
            search = start + name.chars().next().map_or(1, char::len_utf8);
            if !(before && after) || out.len() > PASTED_BYTES {
                continue;
            }
            used = true;
            out.push_str(&input[done..start]);
            origin.extend((done..start).map(from));
            let mut end = end;
            let blanks = out.len() - out.bytes().rev().take_while(|byte| is_blank(*byte)).count();
            out.truncate(blanks);
            while bytes.get(end).is_some_and(|byte| is_blank(*byte)) {
                end += 1;
            }
            if items.is_empty() {
                if out.ends_with(',') {
                    out.pop();
                } else if bytes.get(end) == Some(&b',') {
                    end += 1;
                }
            }
            origin.truncate(out.len());
            let at_start = out.is_empty();
            if !at_start {
                out.push(' ');
            }
            out.push_str(items);
            if end < input.len() {
                out.push(' ');
            }
            origin.resize(out.len(), from(start));
            done = end;
            // At the start of the text Falco goes on one character too far.
            search = if at_start { end + input[end..].chars().next().map_or(1, char::len_utf8) } else { end };
        }
        if used {
            origin.extend((done..input.len()).map(from));
            out.push_str(&input[done..]);
            origin.push(from(input.len()));
            self.origin = Some(origin);
            self.text = out;
        } else {
            self.text = input;
            self.origin = old;
        }
        used
    }
}

/// Whether a name can't be told by the words of a text.
pub(crate) fn is_odd(name: &str) -> bool {
    name.bytes().any(is_delimiter)
}

/// Where in a text the names of lists stand so that Falco would paste the lists over them.
pub(crate) fn hits(text: &str, mut is_list: impl FnMut(&str) -> bool) -> Vec<Span> {
    let mut hits = vec![];
    let mut start = 0;
    for (at, byte) in text.bytes().enumerate().chain(std::iter::once((text.len(), b' '))) {
        if is_delimiter(byte) {
            if at > start && text.get(start..at).is_some_and(&mut is_list) {
                hits.push(Span::new(start, at));
            }
            start = at + 1;
        }
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paste(text: &str, name: &str, items: &[&str]) -> String {
        let mut pasted = Pasted::new(text);
        let quoted: Vec<String> = items.iter().map(|item| pasted_item(item)).collect();
        pasted.paste(name, &pasted_items(quoted.iter().map(String::as_str)));
        assert!(pasted.origin.is_none_or(|origin| origin.len() == pasted.text.len() + 1));
        pasted.text
    }

    #[test]
    fn words_between_delimiters_are_pasted_over() {
        assert_eq!(paste("proc.name in (l)", "l", &["a", "b c"]), "proc.name in ( a, \"b c\" )");
        assert_eq!(paste("proc.name in (a, l, b)", "l", &[]), "proc.name in (a  , b)");
        assert_eq!(paste("proc.name in (l, b)", "l", &[]), "proc.name in (   b)");
        assert_eq!(paste("x contains \"a l c\"", "l", &["z"]), "x contains \"a z c\"");
        assert_eq!(paste("proc.name in (al, l-b, \"l\")", "l", &["z"]), "proc.name in (al, l-b, \"l\")");
        assert_eq!(paste("evt.type=open", "open", &["close"]), "evt.type= close");
        assert_eq!(paste("l l l", "l", &["z"]), "z l z");
        assert_eq!(paste("é", "é", &["z"]), "z");
    }

    #[test]
    fn places_lead_back_to_the_original() {
        let mut pasted = Pasted::new("proc.name in (l) and x");
        assert!(pasted.paste("l", "aaaa, bbbb"));
        let x = pasted.text.find('x').unwrap_or_default();
        assert_eq!(pasted.original(Span::new(x, x + 1)), Span::new(21, 22));
        let b = pasted.text.find("bbbb").unwrap_or_default();
        assert_eq!(pasted.original(Span::new(b, b + 4)).start, 14);
    }

    #[test]
    fn hits_are_whole_words() {
        let found = hits("a in (shells, \"x shells y\", shellsx)", |word| word == "shells");
        assert_eq!(found, [Span::new(6, 12), Span::new(17, 23)]);
    }
}
