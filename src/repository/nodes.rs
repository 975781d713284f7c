//! A tree's JSON as a stream: one entry after another, in the memory of the largest.
//!
//! Only where a node ends and which ids its `content` has is found out here, since a file's content alone may be more than memory holds;
//! what a node says is left to [`tree`].

use std::io::{self, Read};

use data_encoding::HEXLOWER;

use crate::model::content::Content;
use crate::model::entry::Entry;
use crate::model::id::Id;
use crate::repository::tree;

/// Bytes that are asked for at once.
const PIECE: usize = 64 << 10;
/// Bytes of a node without its content, and of anything else that stands in a tree: names, a link's target and extended attributes come to
/// less.
pub const MOST_NODE: usize = 16 << 20;

/// Runs of chunks of one file in a tree whose blob has so many bytes. Two different chunks in a row are a new id at least every second time,
/// which no compressor makes smaller than 32 bytes; only a pattern that comes again and again takes less, and is an attack on memory where
/// it goes on for terabytes.
pub fn most_runs(sealed: usize) -> usize {
    (1 << 20) + sealed / 16
}

/// The entries of a tree whose JSON comes out of `source`.
pub struct Nodes<R> {
    text: Text<R>,
    place: Place,
    node: Vec<u8>,
    most_runs: usize,
    /// The name of the entry before.
    last: Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Begin,
    /// Within the list of nodes, and whether one has come already.
    Nodes(bool),
    End,
}

impl<R: Read> Nodes<R> {
    /// Of a blob of `sealed` bytes.
    pub fn new(source: R, sealed: usize) -> Self {
        let most_runs = most_runs(sealed);
        Nodes { text: Text::new(source), place: Place::Begin, node: Vec::new(), most_runs, last: None }
    }

    /// The next entry; `None` after the last, when the JSON has ended as it should. `Err` tells why it is no tree, or is one whose nodes
    /// are not sorted by their names, which takes all of them to put right.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, String> {
        if self.place == Place::Begin {
            self.begin()?;
        }
        let Place::Nodes(some) = self.place else { return Ok(None) };
        let mut byte = self.text.token()?;
        if byte == b']' {
            self.end()?;
            return Ok(None);
        }
        if some {
            expect(byte, b',')?;
            byte = self.text.token()?;
        }
        expect(byte, b'{')?;
        self.place = Place::Nodes(true);
        let content = self.node()?;
        let entry = tree::decode_node(&self.node, content)?;
        if self.last.as_ref().is_some_and(|last| *last >= entry.name) {
            return Err(format!("the name `{}` is not behind the one before it", entry.name.escape_ascii()));
        }
        self.last = Some(entry.name.clone());
        Ok(Some(entry))
    }

    /// Up to the first node.
    fn begin(&mut self) -> Result<(), String> {
        expect(self.text.token()?, b'{')?;
        loop {
            expect(self.text.token()?, b'"')?;
            let is_nodes = self.key()?;
            let byte = self.text.token()?;
            if is_nodes {
                if byte == b'[' {
                    self.place = Place::Nodes(false);
                    return Ok(());
                }
                self.value(byte)?;
                if self.node != b"null" {
                    return Err("its nodes are no list".to_owned());
                }
                return self.end();
            }
            self.value(byte)?;
            expect(self.text.token()?, b',')?;
        }
    }

    /// From behind the nodes to the end.
    fn end(&mut self) -> Result<(), String> {
        self.place = Place::End;
        loop {
            match self.text.token()? {
                b'}' => break,
                byte => expect(byte, b',')?,
            }
            expect(self.text.token()?, b'"')?;
            if self.key()? {
                return Err("it has nodes twice".to_owned());
            }
            let byte = self.text.token()?;
            self.value(byte)?;
        }
        match self.text.skip_blanks()? {
            None => Ok(()),
            Some(_) => Err("something stands behind its end".to_owned()),
        }
    }

    /// Whether the key that begins here is `nodes`; goes on behind its colon.
    fn key(&mut self) -> Result<bool, String> {
        self.node.clear();
        self.string()?;
        expect(self.text.token()?, b':')?;
        Ok(self.node == b"nodes\"")
    }

    /// Passes over any value, of which the first byte is given; short ones stand in `node` then.
    fn value(&mut self, first: u8) -> Result<(), String> {
        self.node.clear();
        self.node.push(first);
        let mut depth = 0usize;
        match first {
            b'"' => return self.string(),
            b'{' | b'[' => depth = 1,
            _ => {}
        }
        loop {
            let byte = self.text.peek()?.ok_or_else(ends)?;
            if depth == 0 && matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t') {
                return Ok(());
            }
            self.text.step();
            self.put(byte)?;
            match byte {
                b'"' => self.string()?,
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 1 => return Ok(()),
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    /// Copies a node to its end, but for its content, which is given back and stands as `null` in the copy.
    fn node(&mut self) -> Result<Option<Content>, String> {
        self.node.clear();
        self.node.push(b'{');
        let (mut depth, mut content, mut key) = (1usize, None, true);
        while depth > 0 {
            let byte = self.text.next()?.ok_or_else(ends)?;
            self.put(byte)?;
            match byte {
                b'"' => {
                    let from = self.node.len();
                    self.string()?;
                    if depth == 1 && key && self.node[from..] == *b"content\"" {
                        key = false;
                        expect(self.text.token()?, b':')?;
                        self.put(b':')?;
                        if self.text.skip_blanks()? == Some(b'[') {
                            self.text.step();
                            content = Some(self.ids()?);
                            self.node.extend_from_slice(b"null");
                        }
                    }
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                b':' if depth == 1 => key = false,
                b',' if depth == 1 => key = true,
                _ => {}
            }
        }
        Ok(content)
    }

    /// The ids up to the end of their list.
    fn ids(&mut self) -> Result<Content, String> {
        let mut content = Content::default();
        let (mut last, mut id) = ([0u8; 64], Id([0; 32]));
        let mut byte = self.text.token()?;
        while byte != b']' {
            expect(byte, b'"')?;
            let mut text = [0u8; 64];
            self.text.take(&mut text)?;
            expect(self.text.next()?.ok_or_else(ends)?, b'"')?;
            if text != last {
                HEXLOWER.decode_mut(&text, &mut id.0).map_err(|_| format!("`{}` is not an id of 64 hex digits", text.escape_ascii()))?;
                last = text;
            }
            content.push(id);
            if content.runs().len() > self.most_runs {
                return Err("the chunks of one of its files take more memory than such a tree may".to_owned());
            }
            byte = self.text.token()?;
            if byte == b',' {
                byte = self.text.token()?;
                expect(byte, b'"')?;
            }
        }
        Ok(content)
    }

    /// Copies a string from behind its first quote to its last.
    fn string(&mut self) -> Result<(), String> {
        loop {
            let piece = self.text.buffered()?;
            if piece.is_empty() {
                return Err(ends());
            }
            let length = piece.iter().position(|byte| matches!(byte, b'"' | b'\\')).map_or(piece.len(), |at| at + 1);
            self.node.extend_from_slice(&piece[..length]);
            let last = piece[length - 1];
            self.text.at += length;
            self.bounded()?;
            match last {
                b'"' => return Ok(()),
                b'\\' => {
                    let escaped = self.text.next()?.ok_or_else(ends)?;
                    self.put(escaped)?;
                }
                _ => {}
            }
        }
    }

    fn put(&mut self, byte: u8) -> Result<(), String> {
        self.node.push(byte);
        self.bounded()
    }

    fn bounded(&self) -> Result<(), String> {
        if self.node.len() <= MOST_NODE { Ok(()) } else { Err(format!("one of its nodes has more than {MOST_NODE} bytes")) }
    }
}

fn ends() -> String {
    "its JSON ends too early".to_owned()
}

fn expect(byte: u8, expected: u8) -> Result<(), String> {
    if byte == expected {
        return Ok(());
    }
    Err(format!("its JSON has `{}` in the place of `{}`", byte.escape_ascii(), expected.escape_ascii()))
}

/// Bytes of a source, some of them ahead.
struct Text<R> {
    source: R,
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
}

impl<R: Read> Text<R> {
    fn new(source: R) -> Self {
        Text { source, buffer: vec![0; PIECE].into(), at: 0, end: 0 }
    }

    /// What is there already, or comes next; empty at the end.
    fn buffered(&mut self) -> Result<&[u8], String> {
        while self.at == self.end {
            match self.source.read(&mut self.buffer) {
                Ok(0) => return Ok(&[]),
                Ok(got) => (self.at, self.end) = (0, got),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(&self.buffer[self.at..self.end])
    }

    fn peek(&mut self) -> Result<Option<u8>, String> {
        Ok(self.buffered()?.first().copied())
    }

    /// Passes over the byte that was looked at.
    fn step(&mut self) {
        self.at += 1;
    }

    fn next(&mut self) -> Result<Option<u8>, String> {
        let byte = self.peek()?;
        if byte.is_some() {
            self.step();
        }
        Ok(byte)
    }

    /// The next byte that is no white space, not passed over yet.
    fn skip_blanks(&mut self) -> Result<Option<u8>, String> {
        while let Some(byte) = self.peek()? {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Ok(Some(byte));
            }
            self.step();
        }
        Ok(None)
    }

    /// The next byte that is no white space, which must come.
    fn token(&mut self) -> Result<u8, String> {
        let byte = self.skip_blanks()?.ok_or_else(ends)?;
        self.step();
        Ok(byte)
    }

    fn take(&mut self, out: &mut [u8]) -> Result<(), String> {
        let mut done = 0;
        while done < out.len() {
            let piece = self.buffered()?;
            if piece.is_empty() {
                return Err(ends());
            }
            let length = piece.len().min(out.len() - done);
            out[done..done + length].copy_from_slice(&piece[..length]);
            self.at += length;
            done += length;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives its bytes a few at a time.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(self.0.len()).min(out.len());
            out[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    fn all(bytes: &[u8], step: usize) -> Result<Vec<Entry>, String> {
        let mut nodes = Nodes::new(Dribble(bytes, step), bytes.len());
        let mut entries = Vec::new();
        while let Some(entry) = nodes.next_entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }

    proptest! {
        #[test]
        fn a_stream_gives_what_the_whole_gives(entries in tree::tests::entries(), step in 1usize..200) {
            let bytes = tree::encode(&entries);
            prop_assert_eq!(all(&bytes, step).unwrap(), entries);
        }

        #[test]
        fn a_changed_byte_gives_the_same_as_in_the_whole_or_an_error(entries in tree::tests::entries(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = tree::encode(&entries);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(found) = all(&bytes, 50) {
                prop_assert_eq!(tree::decode(&bytes), Ok(found));
            }
        }
    }

    #[test]
    fn what_other_writers_leave_out_or_add_is_read_from_a_stream_too() {
        let id = "0123456789abcdef".repeat(4);
        for json in [
            r#"{"nodes":null}"#.to_owned(),
            r#" { "nodes" : [ ] } "#.to_owned(),
            r#"{"a":[{"nodes":[1]},"]"],"nodes":[{"name":"f","type":"file"}],"b":-1.5e3,"c":{"d":"}"}}"#.to_owned(),
            format!(
                r#"{{"nodes":[{{"name":"a","x":{{"content":["{id}"]}},"type":"file","content" : [ "{id}" , "{id}" ] , "subtree":null}}]}}"#
            ),
            r#"{"nodes":[{"name":"content","type":"file","content":null},{"name":"d\"\\\\","type":"symlink","linktarget":"content"}]}"#
                .to_owned(),
        ] {
            let whole = tree::decode(json.as_bytes()).unwrap();
            assert_eq!(all(json.as_bytes(), 1).unwrap(), whole, "{json}");
        }
    }

    #[test]
    fn a_pattern_of_chunks_without_end_is_refused_before_it_fills_the_memory() {
        let node = format!(r#"{{"nodes":[{{"name":"a","type":"file","content":["{}""#, "0".repeat(64));
        let pattern = format!(r#","{}","{}""#, "1".repeat(64), "2".repeat(64));
        let endless = node.as_bytes().chain(Cycle(pattern.as_bytes(), 0));
        let error = Nodes::new(endless, 1000).next_entry().unwrap_err();
        assert!(error.contains("more memory"), "{error}");
    }

    /// The same bytes again and again.
    struct Cycle<'a>(&'a [u8], usize);

    impl Read for Cycle<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let length = (self.0.len() - self.1).min(out.len());
            out[..length].copy_from_slice(&self.0[self.1..self.1 + length]);
            self.1 = (self.1 + length) % self.0.len();
            Ok(length)
        }
    }

    #[test]
    fn what_is_no_tree_is_refused_in_a_stream_too() {
        let node = |name: &str| format!(r#"{{"name":"{name}","type":"file","content":[]}}"#);
        let nodes = |list: &str| format!(r#"{{"nodes":[{list}]}}"#);
        let (a, b) = (node("a"), node("b"));
        for json in [
            String::new(),
            "[]".into(),
            "{}".into(),
            r#"{"nodes":5}"#.into(),
            r#"{"nodes":[],"nodes":[]}"#.into(),
            nodes(&format!("{b},{a}")),
            nodes(&format!("{a},{a}")),
            nodes(&format!("{a}{b}")),
            nodes(&format!("{a},")),
            nodes(&a)[..20].to_owned(),
            nodes(&a) + "x",
            nodes(r#"{"name":"a","type":"file","content":["00"]}"#),
            nodes(r#"{"name":"a","type":"file","content":[],"content":[]}"#),
            nodes(r#"{"name":"..","type":"dir"}"#),
        ] {
            assert!(all(json.as_bytes(), 3).is_err(), "{json}");
        }
    }
}
