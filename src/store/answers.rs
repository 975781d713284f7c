//! What does an answer of the store really say, before the library believes it?
//!
//! The library takes any XML for a list, ends a list wherever no token follows, fails as a whole over one name that it cannot hold, and
//! repeats what a store has said it cannot do. Each answer passes here first.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector};
use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;
use url::form_urlencoded;

use crate::store::error::{Answer, ErrorKind, of_certificate};

/// More strays than these are not remembered by name.
const MOST_STRAYS: usize = 1000;
/// An answer to a put that is longer than this is no answer of a store.
const SHORT: u64 = 64 << 10;
/// What a page of a list holds at most where the store does not say.
const PAGE: u64 = 1000;

/// Names that lists have passed over, since no object of a repository can have them. Shared by all clones.
#[derive(Clone, Debug, Default)]
pub(super) struct Strays(Arc<Mutex<BTreeSet<String>>>);

impl Strays {
    pub(super) fn add(&self, name: String) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MOST_STRAYS {
            known.insert(name);
        }
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Whether a name that a list gives can be an object's of a repository, and can be asked for again. The markers that some programs make for
/// folders, which end in a slash, cannot.
pub(super) fn is_object_name(name: &str) -> bool {
    name.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains(|c: char| c.is_ascii_control() || c == '\u{fffd}'))
}

/// An answer that stays the same however often it is asked for.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Refusal {
    pub(super) kind: ErrorKind,
    pub(super) text: String,
    pub(super) hint: Option<&'static str>,
}

impl From<Refusal> for HttpError {
    fn from(refusal: Refusal) -> Self {
        // Of the kinds that the library does not repeat.
        HttpError::new(HttpErrorKind::Decode, refusal)
    }
}

/// Makes clients that read answers before the library does.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) strays: Strays,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Answers { client, strays: self.strays.clone() }))
    }
}

#[derive(Debug)]
struct Answers {
    client: HttpClient,
    strays: Strays,
}

/// What was asked, of what is looked at.
enum Asked {
    /// A page of a list, with the token of the page before.
    List {
        token: Option<String>,
    },
    Deletes,
    Put,
    Other,
}

impl Asked {
    fn of(request: &HttpRequest) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let is = |wanted: &str| query.split('&').any(|part| part == wanted);
        match request.method().as_str() {
            "GET" if is("list-type=2") || is("comp=list") => {
                let mut pairs = form_urlencoded::parse(query.as_bytes());
                let token = pairs.find(|(name, _)| matches!(name.as_ref(), "continuation-token" | "marker"));
                Asked::List { token: token.map(|(_, token)| token.into_owned()) }
            }
            "POST" if is("delete") => Asked::Deletes,
            "PUT" => Asked::Put,
            _ => Asked::Other,
        }
    }
}

#[async_trait]
impl HttpService for Answers {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let asked = Asked::of(&request);
        let answer = self.client.execute(request).await.map_err(|error| match of_certificate(&error) {
            Some(refusal) => refusal.into(),
            None => error,
        })?;
        let status = answer.status().as_u16();
        if status >= 500 {
            let (parts, body) = answer.into_parts();
            let body = body.bytes().await?;
            let told = Answer::read(status, &String::from_utf8_lossy(&body));
            if status == 501 || told.code == "NotImplemented" {
                return Err(unsupported(&told).into());
            }
            return Ok(HttpResponse::from_parts(parts, body.into()));
        }
        if !answer.status().is_success() {
            return Ok(answer);
        }
        match asked {
            Asked::List { token } => self.list(answer, token.as_deref()).await,
            Asked::Deletes => of_deletes(answer).await,
            Asked::Put => of_a_put(answer).await,
            Asked::Other => Ok(answer),
        }
    }
}

impl Answers {
    /// The page without the names that no object can have; an error where it is no page, or the list is cut short by it.
    async fn list(&self, answer: HttpResponse, before: Option<&str>) -> Result<HttpResponse, HttpError> {
        let (parts, body) = answer.into_parts();
        let body = body.bytes().await?;
        let page = Page::read(&body)?;
        match page.root.as_str() {
            "ListBucketResult" | "EnumerationResults" => {}
            "Error" => return told_by_a_success(HttpResponse::from_parts(parts, body.into()), &page),
            _ => return Err(no_store(&body).into()),
        }
        page.is_followed_by_the_rest(before)?;
        if page.cut.is_empty() {
            return Ok(HttpResponse::from_parts(parts, body.into()));
        }
        let mut kept = Vec::with_capacity(body.len());
        let mut at = 0;
        for range in page.cut {
            kept.extend_from_slice(&body[at..range.start]);
            at = range.end;
        }
        kept.extend_from_slice(&body[at..]);
        page.strays.into_iter().for_each(|name| self.strays.add(name));
        Ok(HttpResponse::from_parts(parts, kept.into()))
    }
}

async fn of_deletes(answer: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (parts, body) = answer.into_parts();
    let body = body.bytes().await?;
    let page = Page::read(&body)?;
    let answer = HttpResponse::from_parts(parts, body.into());
    match page.root.as_str() {
        "DeleteResult" => Ok(answer),
        "Error" => told_by_a_success(answer, &page),
        other => {
            let text = format!("the answer to a delete of many objects begins with <{other}>");
            Err(Refusal { kind: ErrorKind::Unsupported, text, hint: None }.into())
        }
    }
}

async fn of_a_put(answer: HttpResponse) -> Result<HttpResponse, HttpError> {
    let length = answer.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length == 0 || length > SHORT) {
        return Ok(answer);
    }
    let (parts, body) = answer.into_parts();
    let body = body.bytes().await?;
    let page = Page::read(&body).ok().filter(|page| page.root == "Error");
    let answer = HttpResponse::from_parts(parts, body.into());
    match page {
        Some(page) => told_by_a_success(answer, &page),
        None => Ok(answer),
    }
}

/// A 200 whose body tells of a failure becomes what it is.
fn told_by_a_success(mut answer: HttpResponse, page: &Page) -> Result<HttpResponse, HttpError> {
    let told = Answer { status: 200, code: page.code.clone(), message: page.message.clone() };
    let status = match told.kind() {
        Some(ErrorKind::Unsupported) => return Err(unsupported(&told).into()),
        Some(ErrorKind::Busy) => 503_u16,
        Some(ErrorKind::NoSuchBucket) => 404,
        _ if page.code == "AccessDenied" => 403,
        _ => 400,
    };
    *answer.status_mut() = status.try_into().map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
    Ok(answer)
}

/// Of an answer that no store gives.
fn no_store(body: &[u8]) -> Refusal {
    let begin: String = String::from_utf8_lossy(body).trim_start().chars().take_while(|c| !c.is_control()).take(40).collect();
    Refusal {
        kind: ErrorKind::Unsupported,
        text: format!("what answered is no object store: its answer begins with `{begin}`"),
        hint: Some("check the endpoint: a web page or a proxy answers there"),
    }
}

fn unsupported(told: &Answer) -> Refusal {
    Refusal { kind: ErrorKind::Unsupported, text: told.to_string(), hint: None }
}

/// What an answer in XML says.
#[derive(Debug, Default, PartialEq)]
struct Page {
    /// The name of the outermost element.
    root: String,
    entries: u64,
    /// Where entries stand that no object can have.
    cut: Vec<Range<usize>>,
    strays: Vec<String>,
    is_truncated: Option<bool>,
    most: Option<u64>,
    /// Of the next page.
    token: String,
    code: String,
    message: String,
}

/// An element that is looked at, by its place.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    Blobs,
    Entry,
    Name,
    Field(Field),
    Else,
}

#[derive(Clone, Copy, PartialEq)]
enum Field {
    IsTruncated,
    Token,
    Most,
    Code,
    Message,
}

impl Place {
    fn below(parent: Option<Place>, name: &[u8]) -> Place {
        match (parent, name) {
            (None, _) => Place::Root,
            (Some(Place::Root), b"Contents") | (Some(Place::Blobs), b"Blob") => Place::Entry,
            (Some(Place::Root), b"Blobs") => Place::Blobs,
            (Some(Place::Entry), b"Key" | b"Name") => Place::Name,
            (Some(Place::Root), b"IsTruncated") => Place::Field(Field::IsTruncated),
            (Some(Place::Root), b"NextContinuationToken" | b"NextMarker") => Place::Field(Field::Token),
            (Some(Place::Root), b"MaxKeys") => Place::Field(Field::Most),
            (Some(Place::Root), b"Code") => Place::Field(Field::Code),
            (Some(Place::Root), b"Message") => Place::Field(Field::Message),
            _ => Place::Else,
        }
    }
}

impl Page {
    fn read(body: &[u8]) -> Result<Page, Refusal> {
        // Of what a store has begun to say, the rest may come with another try; of anything else it will not.
        let bad = |page: &Page, kind: ErrorKind, what: &str| {
            let is_a_stores = ["ListBucketResult", "EnumerationResults", "DeleteResult", "Error"].contains(&page.root.as_str());
            if is_a_stores || body.is_empty() {
                Refusal { kind, text: format!("the store's answer is no XML: {what}"), hint: None }
            } else {
                no_store(body)
            }
        };
        let mut page = Page::default();
        let mut places: Vec<Place> = Vec::new();
        let (mut text, mut begun, mut name) = (String::new(), 0, None);
        let mut reader = Reader::from_reader(body);
        reader.config_mut().expand_empty_elements = true;
        loop {
            let at = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
            match reader.read_event().map_err(|e| bad(&page, ErrorKind::Other, &e.to_string()))? {
                Event::Start(start) => {
                    let place = Place::below(places.last().copied(), start.local_name().as_ref());
                    match place {
                        Place::Root => page.root = String::from_utf8_lossy(start.local_name().as_ref()).chars().take(40).collect(),
                        Place::Entry => (begun, name) = (at, None),
                        _ => {}
                    }
                    text.clear();
                    places.push(place);
                }
                Event::Text(part) => text.push_str(&String::from_utf8_lossy(&part)),
                Event::CData(part) => text.push_str(&String::from_utf8_lossy(&part)),
                Event::GeneralRef(part) => match part.resolve_char_ref() {
                    Ok(Some(c)) => text.push(c),
                    Ok(None) => text.push_str(resolve_predefined_entity(&String::from_utf8_lossy(&part)).unwrap_or("\u{fffd}")),
                    Err(_) => text.push('\u{fffd}'),
                },
                Event::End(_) => match places.pop() {
                    Some(Place::Name) => name = Some(std::mem::take(&mut text)),
                    Some(Place::Entry) => {
                        page.entries += 1;
                        if let Some(name) = name.take().filter(|name| !is_object_name(name)) {
                            page.cut.push(begun..usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX));
                            page.strays.push(name);
                        }
                    }
                    Some(Place::Field(field)) => page.set(field, std::mem::take(&mut text)),
                    _ => {}
                },
                Event::Eof if places.is_empty() && !page.root.is_empty() => return Ok(page),
                Event::Eof => return Err(bad(&page, ErrorKind::Busy, "it ends early")),
                _ => {}
            }
        }
    }

    fn set(&mut self, field: Field, text: String) {
        match field {
            Field::IsTruncated => self.is_truncated = Some(text.trim() == "true"),
            Field::Token => self.token = text,
            Field::Most => self.most = text.trim().parse().ok(),
            Field::Code => self.code = text,
            Field::Message => self.message = text,
        }
    }

    /// Refuses a page that is not the last one and after which the library would stop, or begin again for ever.
    fn is_followed_by_the_rest(&self, before: Option<&str>) -> Result<(), Refusal> {
        let is_cut = match self.is_truncated {
            Some(is_truncated) => is_truncated,
            // A store of S3's kind always says it; one that does not may have ended at its limit.
            None => self.root == "ListBucketResult" && self.entries >= self.most.unwrap_or(PAGE),
        };
        let what = match (self.token.as_str(), before) {
            ("", _) if is_cut => format!("its list ends after {} objects, and the store does not say how it goes on", self.entries),
            (token, Some(before)) if token == before => "the store begins its list again instead of going on".to_owned(),
            _ => return Ok(()),
        };
        Err(Refusal {
            kind: ErrorKind::Unsupported,
            text: format!("{what}: it speaks no ListObjectsV2"),
            hint: Some(
                "copy the repository to a store that lists whole (docs/stores.md); nothing is damaged, so there is nothing to repair",
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(body: &str) -> Page {
        Page::read(body.as_bytes()).unwrap()
    }

    fn listing(entries: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3/\"><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        )
    }

    fn entry(key: &str) -> String {
        format!("<Contents><Key>{key}</Key><Size>1</Size><Owner><ID>//</ID></Owner></Contents>")
    }

    #[test]
    fn only_names_that_an_object_can_have_are_kept() {
        let good = ["k/index/x", "k/data/00/a b&amp;c", "k/ü", "k/...", "<![CDATA[k/x]]>"];
        let bad = ["k/index//x", "/k/x", "k/x/", "k/../x", "k/.", "k/a&#10;b", "k/a&#0;b", "k/\u{1}", "", "k/&unknown;"];
        for key in good {
            assert!(page(&listing(&entry(key))).cut.is_empty(), "{key}");
        }
        for key in bad {
            let body = listing(&format!("{}{}\n{}", entry("first"), entry(key), entry("last")));
            let found = page(&body);
            assert_eq!((found.entries, found.cut.len(), found.strays.len()), (3, 1, 1), "{key}");
            assert_eq!(body[found.cut[0].clone()], entry(key), "{key}");
        }
        assert_eq!(page(&listing(&entry("k/&amp;//x"))).strays, ["k/&//x"]);
        let end = "</ListBucketResult>";
        let open = listing("").trim_end_matches(end).to_owned();
        let bytes = [open.as_bytes(), b"<Contents><Key>k/\xff</Key></Contents>", end.as_bytes()].concat();
        assert_eq!(Page::read(&bytes).unwrap().strays, ["k/\u{fffd}"]);
    }

    #[test]
    fn names_in_a_list_of_azure_are_looked_at_too() {
        let body = "<EnumerationResults><Blobs><Blob><Name>k/x</Name><Metadata><Name>a//b</Name></Metadata></Blob><Blob><Name>k//y</Name></Blob>\
                    <BlobPrefix><Name>k//</Name></BlobPrefix></Blobs><NextMarker/></EnumerationResults>";
        let found = page(body);
        assert_eq!((found.entries, found.strays, found.token), (2, vec!["k//y".to_owned()], String::new()));
    }

    #[test]
    fn a_list_that_is_cut_short_is_no_list() {
        let with = |fields: &str| page(&format!("<ListBucketResult>{fields}{}</ListBucketResult>", entry("a")));
        let token = "<NextContinuationToken>t</NextContinuationToken>";
        assert!(with("<IsTruncated>false</IsTruncated>").is_followed_by_the_rest(Some("t")).is_ok());
        assert!(with("").is_followed_by_the_rest(None).is_ok());
        let more = "<IsTruncated>true</IsTruncated>";
        assert!(with(&format!("{more}{token}")).is_followed_by_the_rest(Some("s")).is_ok());
        for (fields, before) in [
            (more.to_owned(), None),
            (format!("{more}<NextContinuationToken/>"), None),
            ("<MaxKeys>1</MaxKeys>".to_owned(), None),
            (format!("{more}{token}"), Some("t")),
        ] {
            let refusal = with(&fields).is_followed_by_the_rest(before).unwrap_err();
            assert_eq!(refusal.kind, ErrorKind::Unsupported, "{fields}");
            assert!(refusal.hint.unwrap().contains("nothing to repair"), "{fields}");
        }
    }

    #[test]
    fn what_is_no_xml_or_ends_early_is_an_error() {
        for (body, kind) in [
            ("", ErrorKind::Busy),
            ("no list", ErrorKind::Unsupported),
            ("<!DOCTYPE html><html><meta><body>Who are you?<br></html>", ErrorKind::Unsupported),
            ("<html><p>Who are you?", ErrorKind::Unsupported),
            ("<ListBucketResult><Contents>", ErrorKind::Busy),
            ("<ListBucketResult></Else>", ErrorKind::Other),
        ] {
            assert_eq!(Page::read(body.as_bytes()).unwrap_err().kind, kind, "{body}");
        }
    }
}
