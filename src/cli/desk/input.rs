//! The files that a command is given.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A file that was read.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path as given, or as found in a folder that was.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// The largest file that is read, in bytes: no manifest of a rule comes near.
const MAX_SIZE: u64 = 64 * 1024 * 1024;

/// Reads every path: `-` is standard input, a folder stands for the YAML and JSON files in it, at any depth, hidden ones
/// left out. What can't be read is told in the second part, and does not keep the rest from being read.
pub fn read(paths: &[PathBuf]) -> (Vec<File>, Vec<String>) {
    let mut files = Vec::new();
    let mut errors = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().take(MAX_SIZE + 1).read_to_end(&mut bytes).map(|_| bytes);
            take("<stdin>".to_owned(), read, &mut files, &mut errors);
        } else if path.is_dir() {
            walk(path, &mut files, &mut errors);
        } else {
            take_file(path, &mut files, &mut errors);
        }
    }
    (files, errors)
}

/// Reads the files of a folder in the order of their names. Links to folders are not followed: they may lead in circles.
fn walk(folder: &Path, files: &mut Vec<File>, errors: &mut Vec<String>) {
    let entries: std::io::Result<Vec<_>> = fs::read_dir(folder).and_then(Iterator::collect);
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(err) => return errors.push(format!("cannot read folder {}: {err}", folder.display())),
    };
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder {
            walk(&path, files, errors);
        } else if path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known))
            && !path.is_dir()
        {
            take_file(&path, files, errors);
        }
    }
}

fn take_file(path: &Path, files: &mut Vec<File>, errors: &mut Vec<String>) {
    let read = fs::File::open(path).and_then(|file| {
        let mut bytes = Vec::new();
        file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    take(path.display().to_string(), read, files, errors);
}

fn take(name: String, read: std::io::Result<Vec<u8>>, files: &mut Vec<File>, errors: &mut Vec<String>) {
    match read.map(String::from_utf8) {
        Err(err) => errors.push(format!("cannot read {name}: {err}")),
        Ok(Ok(text)) if text.len() as u64 > MAX_SIZE => {
            errors.push(format!("{name} is larger than {MAX_SIZE} bytes, which is the most that is read"));
        }
        Ok(Ok(text)) => files.push(File { name, text }),
        Ok(Err(err)) => {
            let at = err.utf8_error().valid_up_to();
            errors.push(format!("{name} is not UTF-8: byte {at} does not belong to any character"));
        }
    }
}

/// Line and column of a byte, both from 1 and the column in characters; with the line itself.
pub fn place(text: &str, offset: usize) -> (usize, usize, &str) {
    let (column, line) = column(text, offset);
    let newlines = text.match_indices('\n').take_while(|(at, _)| *at < offset).count();
    (newlines + 1, column, line)
}

/// Column of a byte, from 1 and in characters, with the line that it is in.
pub fn column(text: &str, offset: usize) -> (usize, &str) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = text.get(..offset).unwrap_or_default();
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
    let column = before.get(start..).unwrap_or_default().chars().count();
    (column + 1, line)
}

/// The lines of a text, to look up the places of many bytes.
#[derive(Debug)]
pub struct Lines {
    /// Where each ends.
    ends: Vec<usize>,
}

impl Lines {
    /// Those of a text.
    pub fn of(text: &str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self { ends: newlines.map(|(at, _)| at).collect() }
    }

    /// The number of the line that a byte is in, from 1.
    pub fn number(&self, offset: usize) -> usize {
        self.ends.partition_point(|end| *end < offset) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_walked_in_order_and_errors_are_collected() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("b/.git")).unwrap();
        for name in ["z.yaml", "a.yml", "b/c.json", "b/.git/x.yaml", "note.txt", ".hidden.yaml"] {
            fs::write(root.join(name), name).unwrap();
        }
        fs::write(root.join("odd.yaml"), b"a\xffb").unwrap();
        let (files, errors) = read(&[root.to_owned(), root.join("note.txt"), root.join("none.yaml")]);
        let texts: Vec<_> = files.iter().map(|file| file.text.as_str()).collect();
        assert_eq!(texts, ["a.yml", "b/c.json", "z.yaml", "note.txt"]);
        assert!(errors[0].contains("odd.yaml is not UTF-8: byte 1"), "{errors:?}");
        assert!(errors[1].starts_with("cannot read ") && errors[1].contains("none.yaml"), "{errors:?}");
    }

    #[test]
    fn places_count_characters_from_one() {
        let text = "ab\né: x\n";
        assert_eq!(place(text, 0), (1, 1, "ab"));
        assert_eq!(place(text, 3), (2, 1, "é: x"));
        assert_eq!(place(text, 5), (2, 2, "é: x"));
        assert_eq!(place(text, 4), (2, 1, "é: x"));
        assert_eq!(place(text, 99), (3, 1, ""));
        let lines = Lines::of(text);
        for offset in 0..=text.len() {
            assert_eq!(lines.number(offset), place(text, offset).0, "{offset}");
        }
    }
}
