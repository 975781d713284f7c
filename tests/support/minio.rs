//! A MinIO server of the test program's own, gone when the program is.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use sha2::{Digest, Sha256};

/// A running server with one empty bucket. Ends when it is dropped or its program dies in any way, with all its data.
pub struct Minio {
    pub endpoint: String,
    pub access_key: String,
    pub secret_key: String,
    pub bucket: &'static str,
    /// The guard: a shell that ends the server and removes its data when this pipe closes, which even a killed program does.
    leash: Option<ChildStdin>,
    guard: Mutex<Child>,
}

/// Starts the server, prints its output, and cleans up when standard input ends. The data folder comes first, then the command.
const GUARD: &str = r#"data="$1"; shift; "$@" 2>&1 & server=$!; cat >/dev/null; kill -9 $server; wait $server 2>/dev/null; rm -rf "$data""#;

impl Minio {
    /// The server that all tests of one program share: give each test a prefix of its own.
    pub fn shared() -> &'static Minio {
        static SHARED: OnceLock<Minio> = OnceLock::new();
        SHARED.get_or_init(Minio::start)
    }

    /// A server for one test alone, such as one that stops it.
    pub fn start() -> Minio {
        let mut said = String::new();
        // Another program may take the free port before the server does.
        for _ in 0..5 {
            match Minio::try_start() {
                Ok(minio) => return minio,
                Err(output) => said = output,
            }
        }
        panic!("MinIO does not start:\n{said}");
    }

    fn try_start() -> Result<Minio, String> {
        let data = tempfile::Builder::new().prefix("keepset-minio-").tempdir().unwrap().keep();
        let bucket = "keepset-test";
        // A folder in MinIO's data folder is a bucket.
        std::fs::create_dir(data.join(bucket)).unwrap();
        let (access_key, secret_key) = (random(), random());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "minio-guard"])
            .arg(&data)
            .arg(binary())
            .args(["server", "--address", &format!("127.0.0.1:{port}"), "--console-address", "127.0.0.1:0"])
            .arg(&data)
            .env("MINIO_ROOT_USER", &access_key)
            .env("MINIO_ROOT_PASSWORD", &secret_key)
            .env("MINIO_BROWSER", "off")
            .env("MINIO_UPDATE", "off")
            .env("MINIO_CI_CD", "on") // a data folder on the root disk is fine here
            .env("HOME", &data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Out of reach of Ctrl-C, which would end the guard before it has cleaned up.
            .process_group(0)
            .spawn()
            .unwrap();
        let leash = guard.stdin.take();
        let mut output = BufReader::new(guard.stdout.take().unwrap());
        let minio = Minio { endpoint: format!("http://127.0.0.1:{port}"), access_key, secret_key, bucket, leash, guard: Mutex::new(guard) };
        let mut said = String::new();
        loop {
            let mut line = String::new();
            if output.read_line(&mut line).unwrap() == 0 || line.contains("FATAL") {
                return Err(said + &line);
            }
            said += &line;
            // The banner, which MinIO prints when it serves.
            if line.contains("API:") {
                break;
            }
        }
        // Whatever else it says must not fill the pipe and stop it.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        Ok(minio)
    }

    /// `s3:http://127.0.0.1:…/bucket/prefix`, which keepset and restic both understand.
    pub fn location(&self, prefix: &str) -> String {
        format!("s3:{}/{}/{prefix}", self.endpoint, self.bucket)
    }

    /// The variables that keepset and restic need for it.
    pub fn variables(&self) -> HashMap<String, String> {
        [("AWS_ACCESS_KEY_ID", &self.access_key), ("AWS_SECRET_ACCESS_KEY", &self.secret_key)]
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .into()
    }

    /// The variables of a key of an hour that may do everything but these, such as `s3:DeleteObject`.
    pub fn variables_without(&self, actions: &[&str]) -> HashMap<String, String> {
        let everywhere = "arn:aws:s3:::*";
        let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [
            { "Effect": "Allow", "Action": ["s3:*"], "Resource": [everywhere] },
            { "Effect": "Deny", "Action": actions, "Resource": [everywhere] },
        ] });
        // Out of the list of processes.
        let user = format!("user = \"{}:{}\"\n", self.access_key, self.secret_key);
        let mut curl = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--config", "-", "--aws-sigv4", "aws:amz:us-east-1:sts"])
            .args(["--data", "Action=AssumeRole&Version=2011-06-15&DurationSeconds=3600", "--data-urlencode", &format!("Policy={policy}")])
            .arg(&self.endpoint)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        curl.stdin.take().unwrap().write_all(user.as_bytes()).unwrap();
        let output = curl.wait_with_output().unwrap();
        assert!(output.status.success(), "MinIO gives no key");
        let answer = String::from_utf8(output.stdout).unwrap();
        let of = |tag: &str| answer.split_once(&format!("<{tag}>")).unwrap().1.split_once("</").unwrap().0.to_owned();
        [("AWS_ACCESS_KEY_ID", "AccessKeyId"), ("AWS_SECRET_ACCESS_KEY", "SecretAccessKey"), ("AWS_SESSION_TOKEN", "SessionToken")]
            .map(|(name, tag)| (name.to_owned(), of(tag)))
            .into()
    }

    /// Ends the server at once, as a power cut would.
    pub fn stop(&mut self) {
        drop(self.leash.take());
        self.guard.get_mut().unwrap().wait().unwrap();
    }
}

impl Drop for Minio {
    fn drop(&mut self) {
        self.stop();
    }
}

fn random() -> String {
    let mut bytes = [0; 10];
    keepset::random::fill(&mut bytes).unwrap();
    data_encoding::HEXLOWER.encode(&bytes)
}

/// The server's program: what `make test` hands over, else what it has left in the cache.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("KEEPSET_TEST_MINIO") {
        return path.into();
    }
    let module = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/minio");
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum"] {
        hash.update(std::fs::read(format!("{module}/{file}")).unwrap());
    }
    let key = &data_encoding::HEXLOWER.encode(&hash.finalize())[..16];
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
    let cache = cache.unwrap_or_else(|| std::env::home_dir().unwrap().join(".cache"));
    let path = cache.join(format!("keepset/minio-{key}/minio"));
    assert!(path.exists(), "no MinIO at {}: run `make test`, which builds it", path.display());
    path
}
