//! Azurite, the Azure Blob Storage of Microsoft's own for tests, gone when the program is.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use data_encoding::BASE64;
use keepset::store::Store;
use sha2::{Digest, Sha256};

const ACCOUNT: &str = "keepsettest";
const CONTAINER: &str = "backups";

/// A running server with one empty container. Ends when its program dies in any way, with all its data, which is in memory.
pub struct Azurite {
    pub endpoint: String,
    key: [u8; 32],
    _leash: Option<ChildStdin>,
    _guard: Mutex<Child>,
}

/// Starts the server and ends it when standard input ends.
const GUARD: &str =
    r#"data="$1"; shift; cd "$data"; "$@" 2>&1 & server=$!; cat >/dev/null; kill -9 $server; wait $server 2>/dev/null; rm -rf "$data""#;

impl Azurite {
    /// The server that all tests of one program share: give each test a prefix of its own.
    pub fn shared() -> &'static Azurite {
        static SHARED: OnceLock<Azurite> = OnceLock::new();
        SHARED.get_or_init(Azurite::start)
    }

    fn start() -> Azurite {
        let data = tempfile::Builder::new().prefix("keepset-azurite-").tempdir().unwrap().keep();
        let mut key = [0; 32];
        keepset::random::fill(&mut key).unwrap();
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "azurite-guard"])
            .arg(&data)
            .arg("node")
            .arg(program())
            .args(["--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", "0", "--disableTelemetry", "--silent"])
            .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{}", BASE64.encode(&key)))
            .env("HOME", &data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let leash = guard.stdin.take();
        let mut output = BufReader::new(guard.stdout.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let mut line = String::new();
            assert!(output.read_line(&mut line).unwrap() > 0, "Azurite does not start:\n{said}");
            said += &line;
            if let Some((_, address)) = line.split_once("successfully listens on ") {
                break address.trim().to_owned();
            }
        };
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let azurite = Azurite { endpoint: format!("{address}/{ACCOUNT}"), key, _leash: leash, _guard: Mutex::new(guard) };
        azurite.make_container();
        azurite
    }

    /// keepset makes none. The one request that is signed here, as Azure's documents say.
    fn make_container(&self) {
        let date = keepset::clock::Clock::system().now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let version = "2021-08-06";
        let signed =
            format!("PUT{}x-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container", "\n".repeat(12));
        let signature = BASE64.encode(&hmac(&self.key, signed.as_bytes()));
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail-with-body", "--request", "PUT", "--header", "Content-Length: 0"])
            .args(["--header", &format!("x-ms-date: {date}"), "--header", &format!("x-ms-version: {version}")])
            .args(["--header", &format!("Authorization: SharedKey {ACCOUNT}:{signature}")])
            .arg(format!("{}/{CONTAINER}?restype=container", self.endpoint))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    pub fn location(&self, prefix: &str) -> String {
        format!("az://{CONTAINER}/{prefix}")
    }

    pub fn variables(&self) -> HashMap<String, String> {
        [
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", BASE64.encode(&self.key)),
            ("AZURE_STORAGE_ENDPOINT", self.endpoint.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    pub fn store(&self, prefix: &str) -> Store {
        Store::open(&self.location(prefix).parse().unwrap(), &self.variables()).unwrap()
    }

    /// The server's address alone.
    pub fn address(&self) -> &str {
        self.endpoint.trim_end_matches(ACCOUNT).trim_end_matches('/')
    }
}

fn hmac(key: &[u8; 32], text: &[u8]) -> Vec<u8> {
    let padded = |with: u8| -> Vec<u8> { (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ with).collect() };
    let inner = Sha256::digest([padded(0x36).as_slice(), text].concat());
    Sha256::digest([padded(0x5c).as_slice(), inner.as_slice()].concat()).to_vec()
}

/// The server's program: what `make test` hands over, else what it has left in the cache.
fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("KEEPSET_TEST_AZURITE") {
        return path.into();
    }
    let lock = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/azurite/package-lock.json")).unwrap();
    let key = &data_encoding::HEXLOWER.encode(&Sha256::digest(lock))[..16];
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
    let cache = cache.unwrap_or_else(|| std::env::home_dir().unwrap().join(".cache"));
    let path = cache.join(format!("keepset/azurite-{key}/node_modules/azurite/dist/src/blob/main.js"));
    assert!(path.exists(), "no Azurite at {}: run `make test`, which installs it", path.display());
    path
}
