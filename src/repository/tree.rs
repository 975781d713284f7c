//! Tree blobs: one folder's entries as restic's JSON.
//!
//! Names are quoted as Go quotes strings (`\xNN` for bytes that are not UTF-8), then once more as JSON. `mode` has Go's `os.FileMode` bits.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::fmt::Write;

use chrono::{DateTime, SecondsFormat};
use data_encoding::{BASE64, HEXLOWER};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::model::content::Content;
use crate::model::entry::{Attrs, Entry, Kind, Time, Xattr};
use crate::model::id::Id;

const GO_DIR: u32 = 1 << 31;
const GO_SYMLINK: u32 = 1 << 27;
const GO_DEVICE: u32 = 1 << 26;
const GO_FIFO: u32 = 1 << 25;
const GO_SOCKET: u32 = 1 << 24;
const GO_SETUID: u32 = 1 << 23;
const GO_SETGID: u32 = 1 << 22;
const GO_CHAR_DEVICE: u32 = 1 << 21;
const GO_STICKY: u32 = 1 << 20;

/// Seconds of years 0000 and 9999, the first and last that RFC 3339 can write.
const FIRST_SECOND: i64 = -62_167_219_200;
const LAST_SECOND: i64 = 253_402_300_799;

/// What stands before the first node, and behind the last.
pub(super) const BEGIN: &str = "{\"nodes\":[";
pub(super) const END: &str = "]}\n";

/// The JSON of a folder's entries, which must be sorted by name. Equal entries give equal bytes.
pub fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = String::with_capacity(64 + entries.len() * 400);
    out.push_str(BEGIN);
    for (i, entry) in entries.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let Ok(()) = encode_entry(&mut out, entry, &mut |_| Ok::<(), Infallible>(()));
    }
    out.push_str(END);
    out.into_bytes()
}

/// About as many bytes as the entry's node has, rather more, without a file's content.
pub fn node_size(entry: &Entry) -> u64 {
    let target = if let Kind::Symlink { target } = &entry.kind { target.len() } else { 0 };
    let xattrs: usize = entry.attrs.xattrs.iter().map(|xattr| 32 + xattr.name.len() + xattr.value.len() / 3 * 4).sum();
    (400 + 2 * entry.name.len() + 2 * target + xattrs) as u64
}

/// About as many bytes as the entry's node has.
pub fn text_size(entry: &Entry) -> u64 {
    let chunks = if let Kind::File { content } = &entry.kind { content.len() } else { 0 };
    node_size(entry) + 67 * chunks as u64
}

/// Adds an entry's node. `spill` may take what stands in `out` and empty it, again and again while a long content is written.
pub(super) fn encode_entry<E>(out: &mut String, entry: &Entry, spill: &mut impl FnMut(&mut String) -> Result<(), E>) -> Result<(), E> {
    let attrs = &entry.attrs;
    out.push_str("{\"name\":");
    json_string(out, &go_quote(&entry.name));
    let (kind, bits) = match &entry.kind {
        Kind::File { .. } => ("file", 0),
        Kind::Dir { .. } => ("dir", GO_DIR),
        Kind::Symlink { .. } => ("symlink", GO_SYMLINK),
        Kind::Fifo => ("fifo", GO_FIFO),
        Kind::Socket => ("socket", GO_SOCKET),
        Kind::CharDevice { .. } => ("chardev", GO_DEVICE | GO_CHAR_DEVICE),
        Kind::BlockDevice { .. } => ("dev", GO_DEVICE),
    };
    let _ = write!(out, ",\"type\":\"{kind}\"");
    field(out, "mode", u64::from(go_mode(attrs.mode) | bits));
    let mtime = rfc3339(attrs.mtime);
    let atime = if attrs.atime == attrs.mtime { Cow::Borrowed(mtime.as_str()) } else { Cow::Owned(rfc3339(attrs.atime)) };
    let ctime = if attrs.ctime == attrs.mtime { Cow::Borrowed(mtime.as_str()) } else { Cow::Owned(rfc3339(attrs.ctime)) };
    let _ = write!(out, ",\"mtime\":\"{mtime}\",\"atime\":\"{atime}\",\"ctime\":\"{ctime}\"");
    let _ = write!(out, ",\"uid\":{},\"gid\":{}", attrs.uid, attrs.gid);
    field(out, "inode", attrs.inode);
    // Only hard links need it, and it differs each time a volume is attached.
    if attrs.links > 1 && !matches!(entry.kind, Kind::Dir { .. }) {
        field(out, "device_id", attrs.device);
    }
    field(out, "size", attrs.size);
    field(out, "links", attrs.links);
    if let Kind::Symlink { target } = &entry.kind {
        out.push_str(",\"linktarget\":");
        json_string(out, &String::from_utf8_lossy(target));
        if std::str::from_utf8(target).is_err() {
            let _ = write!(out, ",\"linktarget_raw\":\"{}\"", BASE64.encode(target));
        }
    }
    if !attrs.xattrs.is_empty() {
        out.push_str(",\"extended_attributes\":[");
        for (i, xattr) in attrs.xattrs.iter().enumerate() {
            out.push_str(if i > 0 { ",{\"name\":" } else { "{\"name\":" });
            json_string(out, &xattr.name);
            let _ = write!(out, ",\"value\":\"{}\"}}", BASE64.encode(&xattr.value));
        }
        out.push(']');
    }
    match &entry.kind {
        Kind::CharDevice { rdev } | Kind::BlockDevice { rdev } => field(out, "device", *rdev),
        _ => {}
    }
    match &entry.kind {
        Kind::File { content } => {
            out.push_str(",\"content\":[");
            let mut is_first = true;
            for run in content.runs() {
                let id = format!(",\"{}\"", run.id.hex());
                for _ in 0..run.count {
                    out.push_str(if is_first { &id[1..] } else { &id });
                    is_first = false;
                    spill(out)?;
                }
            }
            out.push(']');
        }
        _ => out.push_str(",\"content\":null"),
    }
    if let Kind::Dir { subtree: Some(id) } = &entry.kind {
        out.push_str(",\"subtree\":\"");
        HEXLOWER.encode_append(&id.0, out);
        out.push('"');
    }
    if attrs.allocated {
        out.push_str(",\"x-keepset-allocated\":true");
    }
    out.push('}');
    spill(out)
}

fn field(out: &mut String, name: &str, value: u64) {
    if value != 0 {
        let _ = write!(out, ",\"{name}\":{value}");
    }
}

fn go_mode(mode: u32) -> u32 {
    let bit = |from: u32, to: u32| if mode & from == 0 { 0 } else { to };
    mode & 0o777 | bit(0o4000, GO_SETUID) | bit(0o2000, GO_SETGID) | bit(0o1000, GO_STICKY)
}

fn unix_mode(mode: u32) -> u32 {
    let bit = |from: u32, to: u32| if mode & from == 0 { 0 } else { to };
    mode & 0o777 | bit(GO_SETUID, 0o4000) | bit(GO_SETGID, 0o2000) | bit(GO_STICKY, 0o1000)
}

fn rfc3339(time: Time) -> String {
    let secs = time.secs.clamp(FIRST_SECOND, LAST_SECOND);
    DateTime::from_timestamp(secs, time.nanos).unwrap_or_default().to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn from_rfc3339(text: &str) -> Result<Time, String> {
    let time = DateTime::parse_from_rfc3339(text).map_err(|e| format!("time `{text:.40}`: {e}"))?;
    Ok(Time { secs: time.timestamp(), nanos: time.timestamp_subsec_nanos().min(999_999_999) })
}

/// Go's `strconv.Quote` without the quotes round it: what is printable stands as it is.
fn go_quote(name: &[u8]) -> Cow<'_, str> {
    let plain = |c: char| c >= ' ' && c != '"' && c != '\\' && c != '\x7f';
    if let Ok(text) = std::str::from_utf8(name)
        && text.chars().all(plain)
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(name.len() + 8);
    for part in name.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                c if plain(c) => out.push(c),
                c => {
                    let _ = write!(out, "\\x{:02x}", u32::from(c));
                }
            }
        }
        for byte in part.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    Cow::Owned(out)
}

/// Go's `strconv.Unquote` of what stands between the quotes.
fn go_unquote(text: &str) -> Result<Vec<u8>, String> {
    if !text.contains('\\') {
        return Ok(text.as_bytes().to_vec());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = unescape(&rest[at + 1..], &mut out).ok_or_else(|| format!("name `{text:.80}` is not quoted as Go quotes"))?;
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// Takes one escape, whose backslash is gone already, and returns what follows it.
fn unescape<'a>(text: &'a str, out: &mut Vec<u8>) -> Option<&'a str> {
    let letter = text.chars().next()?;
    let rest = &text[letter.len_utf8()..];
    let number = |text: &'a str, digits: usize, radix: u32| {
        let code = text.get(..digits).filter(|code| code.bytes().all(|c| c.is_ascii_hexdigit()))?;
        Some((u32::from_str_radix(code, radix).ok()?, &text[digits..]))
    };
    let plain = match letter {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' | '"' | '\'' => u8::try_from(letter).ok()?,
        'x' | '0'..='7' => {
            let (code, rest) = if letter == 'x' { number(rest, 2, 16)? } else { number(text, 3, 8)? };
            out.push(u8::try_from(code).ok()?);
            return Some(rest);
        }
        'u' | 'U' => {
            let (code, rest) = number(rest, if letter == 'u' { 4 } else { 8 }, 16)?;
            let mut utf8 = [0u8; 4];
            out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut utf8).as_bytes());
            return Some(rest);
        }
        _ => return None,
    };
    out.push(plain);
    Some(rest)
}

fn json_string(out: &mut String, text: &str) {
    if text.bytes().all(|c| c >= b' ' && c != b'"' && c != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(text).expect("text always serialises"));
    }
}

/// A whole tree's JSON, each node turned into its entry as it is read: a folder of a million files stands in memory once.
#[derive(Deserialize)]
struct TreeRecord {
    #[serde(deserialize_with = "entries")]
    nodes: Vec<Entry>,
}

fn entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
    struct Nodes;
    impl<'de> Visitor<'de> for Nodes {
        type Value = Vec<Entry>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a folder's nodes")
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut nodes: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(node) = nodes.next_element::<NodeRecord<'de>>()? {
                entries.push(decode_entry(node).map_err(serde::de::Error::custom)?);
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_any(Nodes)
}

#[derive(Deserialize)]
struct NodeRecord<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    mode: u32,
    #[serde(borrow, default)]
    mtime: Cow<'a, str>,
    #[serde(borrow, default)]
    atime: Cow<'a, str>,
    #[serde(borrow, default)]
    ctime: Cow<'a, str>,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
    #[serde(default)]
    inode: u64,
    #[serde(default)]
    device_id: u64,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    links: u64,
    #[serde(borrow, default)]
    linktarget: Cow<'a, str>,
    #[serde(borrow, default)]
    linktarget_raw: Option<Cow<'a, str>>,
    #[serde(default)]
    extended_attributes: Option<Vec<XattrRecord<'a>>>,
    #[serde(default)]
    device: u64,
    #[serde(default)]
    content: Option<Content>,
    #[serde(default)]
    subtree: Option<Id>,
    #[serde(rename = "x-keepset-allocated", default)]
    allocated: bool,
}

#[derive(Deserialize)]
struct XattrRecord<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    value: Option<Cow<'a, str>>,
}

/// The entries of a tree blob, sorted by name. `Err` tells why it cannot be a folder: bad JSON, a name that no folder can hold, the same
/// name twice, a kind that is not known.
pub fn decode(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let TreeRecord { nodes: mut entries } = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if !entries.is_sorted_by(|a, b| a.name < b.name) {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(format!("the name `{}` stands in it twice", go_quote(&pair[0].name)));
        }
    }
    Ok(entries)
}

/// The entry of one node, whose content stands apart where there is some.
pub(super) fn decode_node(node: &[u8], content: Option<Content>) -> Result<Entry, String> {
    let mut node: NodeRecord<'_> = serde_json::from_slice(node).map_err(|e| e.to_string())?;
    if content.is_some() {
        node.content = content;
    }
    decode_entry(node)
}

fn decode_entry(node: NodeRecord<'_>) -> Result<Entry, String> {
    let name = go_unquote(&node.name)?;
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|c| matches!(c, b'/' | 0)) {
        return Err(format!("no folder can hold the name `{:.80}`", node.name));
    }
    let kind = match &*node.kind {
        "file" => Kind::File { content: node.content.unwrap_or_default() },
        "dir" => Kind::Dir { subtree: node.subtree },
        "symlink" => Kind::Symlink {
            target: match node.linktarget_raw {
                Some(raw) => BASE64.decode(raw.as_bytes()).map_err(|e| format!("link target of `{:.80}`: {e}", node.name))?,
                None => node.linktarget.as_bytes().to_vec(),
            },
        },
        "fifo" => Kind::Fifo,
        "socket" => Kind::Socket,
        "chardev" => Kind::CharDevice { rdev: node.device },
        "dev" => Kind::BlockDevice { rdev: node.device },
        other => return Err(format!("`{:.80}` is of unknown kind `{other:.20}`", node.name)),
    };
    let time = |text: &str| if text.is_empty() { Ok(Time::default()) } else { from_rfc3339(text) };
    let mtime = time(&node.mtime)?;
    let mut xattrs = Vec::new();
    for xattr in node.extended_attributes.unwrap_or_default() {
        let value = BASE64
            .decode(xattr.value.as_deref().unwrap_or_default().as_bytes())
            .map_err(|e| format!("attribute `{:.80}` of `{:.80}`: {e}", xattr.name, node.name))?;
        xattrs.push(Xattr { name: xattr.name.into_owned(), value });
    }
    let attrs = Attrs {
        mode: unix_mode(node.mode),
        uid: node.uid,
        gid: node.gid,
        mtime,
        atime: if node.atime == node.mtime { mtime } else { time(&node.atime)? },
        ctime: if node.ctime == node.mtime { mtime } else { time(&node.ctime)? },
        inode: node.inode,
        device: node.device_id,
        links: node.links,
        size: if matches!(kind, Kind::File { .. }) { node.size } else { 0 },
        allocated: node.allocated && matches!(kind, Kind::File { .. }),
        xattrs,
    };
    Ok(Entry { name, kind, attrs })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time() -> impl Strategy<Value = Time> {
        (FIRST_SECOND..=LAST_SECOND, 0u32..1_000_000_000).prop_map(|(secs, nanos)| Time { secs, nanos })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let name = proptest::collection::vec(any::<u8>().prop_filter("a byte of a name", |c| *c != b'/' && *c != 0), 1..60)
            .prop_filter("no dots", |name| name != b"." && name != b"..");
        let ids = proptest::collection::vec(any::<[u8; 32]>().prop_map(Id), 0..3);
        let kind = prop_oneof![
            ids.prop_map(|ids| Kind::File { content: ids.into() }),
            any::<[u8; 32]>().prop_map(|id| Kind::Dir { subtree: Some(Id(id)) }),
            proptest::collection::vec(1u8.., 1..40).prop_map(|target| Kind::Symlink { target }),
            Just(Kind::Fifo),
            Just(Kind::Socket),
            (1u64..).prop_map(|rdev| Kind::CharDevice { rdev }),
            (1u64..).prop_map(|rdev| Kind::BlockDevice { rdev }),
        ];
        let xattrs = proptest::collection::vec(
            (".{1,12}", proptest::collection::vec(any::<u8>(), 0..20)).prop_map(|(name, value)| Xattr { name, value }),
            0..3,
        );
        (name, kind, 0u32..0o10000, any::<(u32, u32, u64, u64)>(), time(), time(), time(), xattrs).prop_map(
            |(name, kind, mode, (uid, gid, inode, size), mtime, atime, ctime, xattrs)| {
                let is_file = matches!(kind, Kind::File { .. });
                let (size, allocated) = (if is_file { size } else { 0 }, is_file && inode % 4 == 0);
                Entry {
                    name,
                    kind,
                    attrs: Attrs { mode, uid, gid, mtime, atime, ctime, inode, device: 0, links: 1, size, allocated, xattrs },
                }
            },
        )
    }

    /// Entries of a folder.
    pub(in crate::repository) fn entries() -> impl Strategy<Value = Vec<Entry>> {
        proptest::collection::vec(entry(), 0..6).prop_map(|mut entries| {
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            entries.dedup_by(|a, b| a.name == b.name);
            entries
        })
    }

    proptest! {
        #[test]
        fn every_entry_survives_the_json(entries in entries()) {
            let bytes = encode(&entries);
            prop_assert_eq!(decode(&bytes).unwrap(), entries.clone());
            prop_assert_eq!(encode(&entries), bytes);
        }
    }

    #[test]
    fn names_that_would_leave_the_folder_are_refused() {
        for name in ["", ".", "..", "a/b", "/etc", "a\\u0000", "..\\x2f"] {
            let json = format!(r#"{{"nodes":[{{"name":"{name}","type":"file","content":[]}}]}}"#);
            assert!(decode(json.as_bytes()).is_err(), "{name}");
        }
    }

    #[test]
    fn the_same_name_twice_is_refused_and_any_order_is_read() {
        let node = |name: &str| format!(r#"{{"name":"{name}","type":"file","content":null}}"#);
        let tree = |names: [&str; 2]| format!(r#"{{"nodes":[{},{}]}}"#, node(names[0]), node(names[1]));
        assert!(decode(tree(["a", "a"]).as_bytes()).is_err());
        assert_eq!(decode(tree(["b", "a"]).as_bytes()).unwrap()[0].name, b"a");
    }

    #[test]
    fn what_other_writers_leave_out_or_set_to_null_is_read() {
        let json = r#"{"nodes":[{"name":"d","type":"dir","mode":2147484141,"mtime":"2020-01-02T03:04:05.000000006+02:00",
            "atime":"2020-01-02T03:04:05.000000006+02:00","ctime":"2020-01-02T03:04:05Z","uid":0,"gid":0,"user":"root","content":null,
            "extended_attributes":[{"name":"user.x","value":null}],"subtree":null,"generic_attributes":{"a":1}}],"more":1}"#;
        let entries = decode(json.as_bytes()).unwrap();
        assert_eq!(entries[0].attrs.mode, 0o755);
        assert_eq!(entries[0].attrs.mtime.nanos, 6);
        assert_eq!(entries[0].attrs.xattrs[0].value, b"");
        assert_eq!(decode(br#"{"nodes":null}"#).unwrap(), []);
    }

    #[test]
    fn gos_escapes_are_understood() {
        assert_eq!(go_unquote(r#"a\tb\n\"\\\x00\xff\u00e9\U0001f600\101"#).unwrap(), b"a\tb\n\"\\\x00\xff\xc3\xa9\xf0\x9f\x98\x80A");
        for bad in [r"\", r"\x1", r"\xgg", r"\u12", r"\q", r"\ud800", r"\8"] {
            assert!(go_unquote(bad).is_err(), "{bad}");
        }
    }
}
