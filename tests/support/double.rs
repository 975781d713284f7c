//! A small server in memory that speaks S3 or Google's XML API, with the quirks of servers that speak them otherwise.
//!
//! It does what the documents of these APIs promise: create-only puts, ranges, pages in the order of names, deletes in bulk. Signatures are
//! looked at for their form only.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use chrono::{DateTime, Utc};
use keepset::store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use url::form_urlencoded;

pub const BUCKET: &str = "keepset-test";
const KEY_ID: &str = "double";
const BEARER: &str = "a-token-of-google";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speech {
    #[default]
    S3,
    Google,
}

/// How a put that may only create is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Create {
    #[default]
    Works,
    /// 501, as Backblaze B2 and Alibaba OSS.
    NotImplemented,
    /// Done, whatever is there.
    Ignored,
}

/// How a delete of many objects is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bulk {
    #[default]
    Works,
    /// 501, as Google's S3 API.
    NotImplemented,
    NotAllowed,
    /// 400, since a checksum is missing or not the one that is wanted.
    WantsChecksum,
    /// 200, with an error for a body.
    ErrorInSuccess,
}

/// How a list is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lists {
    #[default]
    Work,
    /// As the first version of the API: cut, and no token.
    FirstVersion,
    /// The token is not looked at, and the list begins again.
    BeginAgain,
    /// Cut, and not a word of it.
    CutSilently,
    /// 200, with an error for a body.
    ErrorInSuccess,
    /// 200, with a page for people.
    WebPage,
}

/// What this server does otherwise. The default is a server as it should be.
#[derive(Clone, Debug)]
pub struct Quirks {
    pub speech: Speech,
    pub create: Create,
    pub bulk: Bulk,
    pub lists: Lists,
    /// Objects on a page.
    pub page: usize,
    /// Objects below it have been moved to an archive.
    pub archived: Option<&'static str>,
    /// Puts are answered with 200 and an error for a body, and not done.
    pub puts_fail: bool,
    /// Each request is refused so, as a HEAD is, without a body.
    pub refuses: Option<(u16, &'static str)>,
}

impl Default for Quirks {
    fn default() -> Self {
        Quirks {
            speech: Speech::default(),
            create: Create::default(),
            bulk: Bulk::default(),
            lists: Lists::default(),
            page: 1000,
            archived: None,
            puts_fail: false,
            refuses: None,
        }
    }
}

struct Stored {
    bytes: Vec<u8>,
    modified: DateTime<Utc>,
    generation: u64,
}

struct Inside {
    quirks: Quirks,
    objects: BTreeMap<String, Stored>,
    /// Method and path with query, as they came.
    requests: Vec<String>,
    generation: u64,
}

/// A running server with one bucket. Ends when it is dropped.
pub struct Double {
    pub endpoint: String,
    inside: Arc<Mutex<Inside>>,
    speech: Speech,
    runtime: Option<Runtime>,
}

impl Double {
    pub fn start(quirks: Quirks) -> Double {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let speech = quirks.speech;
        let inside = Arc::new(Mutex::new(Inside { quirks, objects: BTreeMap::new(), requests: Vec::new(), generation: 0 }));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(serve).with_state(Arc::clone(&inside));
        runtime.spawn(async move { axum::serve(TcpListener::from_std(listener).unwrap(), router).await });
        Double { endpoint, inside, speech, runtime: Some(runtime) }
    }

    /// The address of a repository in it.
    pub fn location(&self, prefix: &str) -> String {
        match self.speech {
            Speech::S3 => format!("s3:{}/{BUCKET}/{prefix}", self.endpoint),
            Speech::Google => format!("gs://{BUCKET}/{prefix}"),
        }
    }

    /// The variables that go with the address.
    pub fn variables(&self) -> HashMap<String, String> {
        let variables = match self.speech {
            Speech::S3 => [("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", "geheim")],
            Speech::Google => [("GOOGLE_BASE_URL", self.endpoint.as_str()), ("GOOGLE_BEARER_TOKEN", BEARER)],
        };
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    pub fn store(&self, prefix: &str) -> Store {
        self.try_store(prefix).unwrap()
    }

    pub fn try_store(&self, prefix: &str) -> Result<Store, StoreError> {
        Store::open(&self.location(prefix).parse().unwrap(), &self.variables())
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }

    /// Other quirks from now on.
    pub fn now(&self, change: impl FnOnce(&mut Quirks)) {
        change(&mut self.inside().quirks);
    }

    /// An object that another program has put there, whatever its name.
    pub fn plant(&self, name: &str) {
        self.inside().put(name.to_owned(), b"of another program".to_vec());
    }

    pub fn names(&self) -> Vec<String> {
        self.inside().objects.keys().cloned().collect()
    }

    pub fn requests(&self) -> Vec<String> {
        self.inside().requests.clone()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(State(inside): State<Arc<Mutex<Inside>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else { return answer(400, "") };
    let query: HashMap<String, String> = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    // A plus is a plus in a path.
    let path = head.uri.path().replace('+', "%2B");
    let path: String = form_urlencoded::parse(path.as_bytes()).map(|(name, _)| name.into_owned()).next().unwrap_or_default();
    let path = path.trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let mut inside = inside.lock().unwrap();
    inside.requests.push(format!("{} {}", head.method, head.uri));
    let method = head.method.as_str();
    if let Some((status, code)) = inside.quirks.refuses {
        return if method == "HEAD" { answer(status, "") } else { error(status, code) };
    }
    if !is_signed(&head.headers, inside.quirks.speech) {
        return error(403, "AccessDenied");
    }
    if bucket != BUCKET {
        return error(404, "NoSuchBucket");
    }
    match (method, key) {
        ("GET", "") if query.get("list-type").is_some_and(|kind| kind == "2") => inside.list(&query),
        ("POST", "") if query.contains_key("delete") => inside.delete_many(&String::from_utf8_lossy(&body)),
        ("GET" | "HEAD", key) => inside.get(key, head.headers.get("range").and_then(|range| range.to_str().ok())),
        ("PUT", key) => inside.put_asked(key, body.to_vec(), &head.headers),
        ("DELETE", key) => {
            let was_there = inside.objects.remove(key).is_some();
            if was_there || inside.quirks.speech == Speech::S3 { answer(204, "") } else { error(404, "NoSuchKey") }
        }
        _ => error(405, "MethodNotAllowed"),
    }
}

fn is_signed(headers: &HeaderMap, speech: Speech) -> bool {
    let given = headers.get("authorization").and_then(|given| given.to_str().ok()).unwrap_or_default();
    match speech {
        Speech::S3 => given.starts_with(&format!("AWS4-HMAC-SHA256 Credential={KEY_ID}/")),
        Speech::Google => given == format!("Bearer {BEARER}"),
    }
}

impl Inside {
    fn put(&mut self, key: String, bytes: Vec<u8>) -> u64 {
        self.generation += 1;
        self.objects.insert(key, Stored { bytes, modified: keepset::clock::Clock::system().now(), generation: self.generation });
        self.generation
    }

    fn put_asked(&mut self, key: &str, bytes: Vec<u8>, headers: &HeaderMap) -> Response {
        let creates = match self.quirks.speech {
            Speech::S3 => headers.get("if-none-match").is_some_and(|value| value == "*"),
            Speech::Google => headers.get("x-goog-if-generation-match").is_some_and(|value| value == "0"),
        };
        if self.quirks.puts_fail {
            return error(200, "AccessDenied");
        }
        match self.quirks.create {
            Create::NotImplemented if creates => return error(501, "NotImplemented"),
            Create::Works if creates && self.objects.contains_key(key) => return error(412, "PreconditionFailed"),
            _ => {}
        }
        let generation = self.put(key.to_owned(), bytes);
        with_generation(answer(200, ""), generation)
    }

    fn get(&self, key: &str, range: Option<&str>) -> Response {
        let Some(stored) = self.objects.get(key) else { return error(404, "NoSuchKey") };
        if self.quirks.archived.is_some_and(|archived| key.contains(archived)) {
            return error(403, "InvalidObjectState");
        }
        let whole = stored.bytes.len();
        let range = range.and_then(|range| {
            let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
            Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()?.min(whole.saturating_sub(1))))
        });
        let (status, bytes, about) = match range {
            None => (200, stored.bytes.clone(), None),
            Some((from, _)) if from >= whole => return error(416, "InvalidRange"),
            Some((from, to)) => (206, stored.bytes[from..=to].to_vec(), Some(format!("bytes {from}-{to}/{whole}"))),
        };
        let mut response = Response::builder()
            .status(status)
            .header("last-modified", stored.modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string())
            .header("content-length", bytes.len());
        if let Some(about) = about {
            response = response.header("content-range", about);
        }
        with_generation(response.body(Body::from(bytes)).unwrap(), stored.generation)
    }

    fn list(&self, query: &HashMap<String, String>) -> Response {
        match self.quirks.lists {
            Lists::ErrorInSuccess => return error(200, "AccessDenied"),
            Lists::WebPage => {
                return answer(200, "<!DOCTYPE html>\n<html><head><title>Log in</title></head><body>Who are you?</body></html>");
            }
            _ => {}
        }
        let prefix = query.get("prefix").cloned().unwrap_or_default();
        let after = match self.quirks.lists {
            Lists::Work | Lists::ErrorInSuccess | Lists::WebPage => query.get("continuation-token"),
            Lists::FirstVersion | Lists::BeginAgain | Lists::CutSilently => None,
        };
        let all: Vec<_> = self.objects.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix)).collect();
        let rest = all.iter().filter(|(key, _)| after.is_none_or(|after| *key > after));
        let page: Vec<_> = rest.clone().take(self.quirks.page).collect();
        let is_cut = rest.count() > page.len();
        let mut body = format!("<ListBucketResult xmlns=\"http://doc.s3.amazonaws.com/2006-03-01\"><Name>{BUCKET}</Name>");
        if self.quirks.lists != Lists::CutSilently {
            write!(body, "<IsTruncated>{is_cut}</IsTruncated>").unwrap();
        }
        write!(body, "<MaxKeys>{}</MaxKeys><Prefix>{}</Prefix>", self.quirks.page, escaped(&prefix)).unwrap();
        for (key, stored) in &page {
            write!(
                body,
                "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>&quot;{}&quot;</ETag><Size>{}</Size></Contents>",
                escaped(key),
                stored.modified.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
                stored.generation,
                stored.bytes.len()
            )
            .unwrap();
        }
        match (self.quirks.lists, page.last()) {
            (Lists::Work | Lists::BeginAgain, Some((last, _))) if is_cut => {
                write!(body, "<NextContinuationToken>{}</NextContinuationToken>", escaped(last)).unwrap();
            }
            _ => {}
        }
        answer(200, &(body + "</ListBucketResult>"))
    }

    fn delete_many(&mut self, body: &str) -> Response {
        match (self.quirks.speech, self.quirks.bulk) {
            (Speech::Google, _) | (_, Bulk::NotImplemented) => return error(501, "NotImplemented"),
            (_, Bulk::NotAllowed) => return error(405, "MethodNotAllowed"),
            (_, Bulk::WantsChecksum) => return error(400, "MissingArgument"),
            (_, Bulk::ErrorInSuccess) => return error(200, "InvalidRequest"),
            (_, Bulk::Works) => {}
        }
        let mut result = String::from("<DeleteResult>");
        for key in body.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>")).map(|(key, _)| key) {
            let plain = key.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&");
            self.objects.remove(&plain);
            write!(result, "<Deleted><Key>{key}</Key></Deleted>").unwrap();
        }
        answer(200, &(result + "</DeleteResult>"))
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c if c.is_control() => write!(escaped, "&#{};", u32::from(c)).unwrap(),
            c => escaped.push(c),
        }
    }
    escaped
}

fn answer(status: u16, body: &str) -> Response {
    Response::builder().status(StatusCode::from_u16(status).unwrap()).body(Body::from(body.to_owned())).unwrap()
}

fn error(status: u16, code: &str) -> Response {
    answer(
        status,
        &format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>says the double</Message></Error>"),
    )
}

fn with_generation(mut response: Response, generation: u64) -> Response {
    let headers = response.headers_mut();
    headers.insert("etag", format!("\"{generation}\"").parse().unwrap());
    headers.insert("x-goog-generation", generation.into());
    response
}
