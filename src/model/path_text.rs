//! How a path of any bytes is written for people and JSON, and read back.

use std::fmt::Write;

/// The path as text: UTF-8 stays as it is; bytes that are not UTF-8, and control characters, become `\xNN`; a backslash becomes `\\`.
///
/// No two paths have the same text, and no text moves a terminal's cursor.
pub fn path_text(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for part in path.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => escape(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => text.push(c),
            }
        }
        escape(&mut text, part.invalid());
    }
    text
}

fn escape(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}"); // writing into a String cannot fail
    }
}

/// The bytes that [`path_text`] wrote so. A backslash that begins neither `\\` nor `\xNN` stands for itself, so that a person's plain path works too.
pub fn path_from_text(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut path = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at + 1..];
        let (value, used) = match (byte, rest) {
            (b'\\', [b'\\', ..]) => (b'\\', 2),
            (b'\\', [b'x', high, low, ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 4),
                _ => (byte, 1),
            },
            _ => (byte, 1),
        };
        path.push(value);
        at += used;
    }
    path
}

/// The names on a path as a person writes it: slash-separated, each as [`path_text`] wrote it. This is what `--path` and the paths of `ls`,
/// `dump` and a journal mean, and nothing else.
pub fn path_parts(text: &str) -> Vec<Vec<u8>> {
    text.split('/').filter(|part| !matches!(*part, "" | ".")).map(path_from_text).collect()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_shows_utf_8_and_escapes_the_rest() {
        assert_eq!(path_text("daten/größe".as_bytes()), "daten/größe");
        assert_eq!(path_text(b"a\xff\nb\\c"), "a\\xff\\x0ab\\\\c");
        assert_eq!(path_text("\u{9b}31m".as_bytes()), "\\xc2\\x9b31m");
    }

    #[test]
    fn a_persons_single_backslash_stands_for_itself() {
        assert_eq!(path_from_text("a\\b\\xzz\\"), b"a\\b\\xzz\\");
    }

    #[test]
    fn a_path_is_split_before_it_is_read_so_that_no_escape_makes_a_slash() {
        assert_eq!(path_parts("/a//./b\\x0a/c\\\\x0a"), [b"a".to_vec(), b"b\n".to_vec(), b"c\\x0a".to_vec()]);
        assert_eq!(path_parts("a\\x2fb"), [b"a/b".to_vec()]);
        assert_eq!(path_parts("./"), Vec::<Vec<u8>>::new());
    }

    proptest! {
        #[test]
        fn every_path_survives_text(path in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(path_from_text(&path_text(&path)), path);
        }
    }
}
