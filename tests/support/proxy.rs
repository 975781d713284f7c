//! A TCP proxy between a program and its object store, which cuts, resets, delays, swallows and answers in the store's place, request by
//! request. It reads just enough of HTTP/1.1 to know where a request and its answer end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use keepset::store::fault::Gate;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::minio::Minio;

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Fate {
    Pass,
    /// The connection is reset before the store has seen anything.
    Reset,
    /// The connection is reset when half of the request has reached the store.
    CutRequest,
    /// The store does it, and the connection is reset instead of the answer.
    LoseReply,
    /// The store does it, and the connection is reset when half of the answer has come.
    CutReply,
    /// `503 SlowDown` instead of the store's answer.
    Busy,
    /// `403 AccessDenied` instead of the store's answer.
    Denied,
    /// Nothing ever comes, on a connection that stays open.
    BlackHole,
    /// The store gets it once somebody opens the gate.
    Held(Gate),
    /// The answer comes in eight pieces, each after this time.
    Drip(Duration),
    /// The store does it, and its answer says of every object that it is a year older than it is.
    Aged,
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Of the body.
    pub bytes: usize,
}

/// Decides the fate of the `n`-th request, from 0.
type Rule = Box<dyn FnMut(usize, &Request) -> Fate + Send>;

/// A running proxy. Ends, with all its connections, when it is dropped.
pub struct Proxy {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
    runtime: Option<Runtime>,
}

struct State {
    rule: Rule,
    requests: Vec<Request>,
}

impl Proxy {
    /// Before this server, passing everything until it is told otherwise.
    pub fn before(minio: &Minio) -> Proxy {
        Proxy::to(&minio.endpoint)
    }

    /// The same before any server, by its `http://host:port`.
    pub fn to(endpoint: &str) -> Proxy {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = endpoint.trim_start_matches("http://").to_owned();
        let state = Arc::new(Mutex::new(State { rule: Box::new(|_, _| Fate::Pass), requests: Vec::new() }));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A connection that breaks, on either side, is what this is for.
                let (server, shared) = (server.clone(), Arc::clone(&shared));
                tokio::spawn(async move { serve(client, &server, &shared).await.ok() });
            }
        });
        Proxy { endpoint, state, runtime: Some(runtime) }
    }

    /// As [`Minio::location`], through the proxy.
    pub fn location(&self, minio: &Minio, prefix: &str) -> String {
        format!("s3:{}/{}/{prefix}", self.endpoint, minio.bucket)
    }

    /// Forgets what was, and follows this rule from now on: the next request is number 0.
    pub fn obey(&self, rule: impl FnMut(usize, &Request) -> Fate + Send + 'static) {
        *self.state.lock().unwrap() = State { rule: Box::new(rule), requests: Vec::new() };
    }

    /// All requests so far, in the order in which they came.
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A head and a body, as they came.
struct Message {
    head: String,
    body: Vec<u8>,
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        [self.head.as_bytes(), &self.body].concat()
    }
}

async fn serve(client: TcpStream, server: &str, state: &Mutex<State>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut client = BufReader::new(client);
    while let Some(request) = read_message(&mut client, false).await? {
        let mut words = request.head.split(' ');
        let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let fate = {
            let mut state = state.lock().unwrap();
            let number = state.requests.len();
            let told = Request { method: method.clone(), path, bytes: request.body.len() };
            state.requests.push(told.clone());
            (state.rule)(number, &told)
        };
        match &fate {
            Fate::Reset => return reset(&client),
            Fate::CutRequest => {
                let half = request.bytes();
                TcpStream::connect(server).await?.write_all(&half[..half.len() / 2]).await?;
                return reset(&client);
            }
            Fate::Busy => {
                client.write_all(&refusal("503 Service Unavailable", "SlowDown", &method)).await?;
                continue;
            }
            Fate::Denied => {
                client.write_all(&refusal("403 Forbidden", "AccessDenied", &method)).await?;
                continue;
            }
            Fate::BlackHole => std::future::pending().await,
            Fate::Held(gate) => gate.pass().await,
            Fate::Pass | Fate::LoseReply | Fate::CutReply | Fate::Drip(_) | Fate::Aged => {}
        }
        let mut connection = BufReader::new(TcpStream::connect(server).await?);
        connection.write_all(&request.bytes()).await?;
        let reply = read_message(&mut connection, method == "HEAD").await?.map(|reply| reply.bytes()).unwrap_or_default();
        match fate {
            Fate::LoseReply => return reset(&client),
            Fate::CutReply => {
                client.write_all(&reply[..reply.len() / 2]).await?;
                client.flush().await?;
                return reset(&client);
            }
            Fate::Drip(pause) => {
                for piece in reply.chunks(reply.len().div_ceil(8).max(1)) {
                    tokio::time::sleep(pause).await;
                    client.write_all(piece).await?;
                }
            }
            Fate::Aged => client.write_all(&aged(reply)).await?,
            _ => client.write_all(&reply).await?,
        }
    }
    Ok(())
}

/// Ends the connection without the courtesies: the other side is told that it was reset.
fn reset(client: &BufReader<TcpStream>) -> std::io::Result<()> {
    client.get_ref().set_zero_linger()
}

/// Each `<LastModified>` of a list with the year before: as many bytes as it was.
fn aged(mut reply: Vec<u8>) -> Vec<u8> {
    const TAG: &[u8] = b"<LastModified>";
    for at in 0..reply.len().saturating_sub(TAG.len() + 4) {
        if !reply[at..].starts_with(TAG) {
            continue;
        }
        let year = &mut reply[at + TAG.len()..][..4];
        let before = std::str::from_utf8(year).unwrap().parse::<u32>().unwrap() - 1;
        year.copy_from_slice(before.to_string().as_bytes());
    }
    reply
}

fn refusal(status: &str, code: &str, method: &str) -> Vec<u8> {
    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>says the proxy</Message></Error>");
    let sent = if method == "HEAD" { "" } else { &body };
    format!("HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n{sent}", body.len()).into_bytes()
}

/// `None` at the end of the connection.
async fn read_message(from: &mut BufReader<TcpStream>, bodiless: bool) -> std::io::Result<Option<Message>> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        head += &line;
        if line == "\r\n" {
            break;
        }
    }
    let header = |name: &str| {
        head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let mut body = Vec::new();
    if bodiless {
        return Ok(Some(Message { head, body }));
    }
    if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        loop {
            let mut line = String::new();
            from.read_line(&mut line).await?;
            let length = usize::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16).map_err(std::io::Error::other)?;
            body.extend(line.as_bytes());
            let start = body.len();
            body.resize(start + length + 2, 0);
            from.read_exact(&mut body[start..]).await?;
            if length == 0 {
                break;
            }
        }
    } else {
        let length = header("content-length").map_or(Ok(0), |length| length.parse()).map_err(std::io::Error::other)?;
        body.resize(length, 0);
        from.read_exact(&mut body).await?;
    }
    Ok(Some(Message { head, body }))
}
