//! A namespace of a real cluster with everything that keepset needs there, and keepset run under exactly the rights of `deploy/`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::keepset::Ran;
use super::restic::Restic;

pub const PASSWORD: &str = "correct horse battery staple";
/// Who may submit runs, and nothing else.
const PERSON: &str = "person";
const BUSYBOX: &str = "localhost/busybox:1";

/// One namespace. It is removed when this is dropped, unless the test fails.
pub struct Space {
    pub name: String,
    dir: TempDir,
}

/// What a set of busybox pods is like.
pub struct Plain {
    pub name: &'static str,
    pub start: u32,
    pub replicas: u32,
    pub templates: &'static [&'static str],
    pub class: &'static str,
    pub policy: &'static str,
    /// `whenScaled` of its claims.
    pub when_scaled: &'static str,
    /// What each pod does, after it has written down when it began.
    pub command: &'static str,
}

impl Default for Plain {
    fn default() -> Self {
        Plain {
            name: "web",
            start: 0,
            replicas: 3,
            templates: &["data"],
            class: "keepset-csi",
            policy: "OrderedReady",
            when_scaled: "Retain",
            command: ":",
        }
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: `make e2e` runs this suite"))
}

/// Asks until the answer is yes; the last word of `what` is the panic's.
pub fn eventually(what: &str, ask: impl FnMut() -> bool) {
    eventually_or(what, ask, String::new);
}

/// As [`eventually`]; where it does not come, `why` is told too.
pub fn eventually_or(what: &str, mut ask: impl FnMut() -> bool, why: impl Fn() -> String) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !ask() {
        assert!(Instant::now() < deadline, "not within two minutes: {what}\n{}", why());
        pause();
    }
}

#[allow(clippy::disallowed_methods, reason = "a cluster is another program, whose state can only be asked for again")]
fn pause() {
    std::thread::sleep(Duration::from_millis(400));
}

/// What the administrator's kubectl says; a failure is a panic.
pub fn kubectl<'a>(args: impl IntoIterator<Item = &'a str>) -> String {
    kubectl_with(args, "")
}

pub fn kubectl_with<'a>(args: impl IntoIterator<Item = &'a str>, input: &str) -> String {
    let args: Vec<&str> = args.into_iter().collect();
    let mut child =
        Command::new("kubectl").args(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Space {
    /// A new namespace, whose pods must pass the `restricted` profile.
    pub fn new(name: &str) -> Space {
        let name = format!("e2e-{name}-{}", std::process::id());
        let space = Space { dir: tempfile::tempdir().unwrap(), name };
        kubectl(["create", "namespace", &space.name]);
        kubectl(["label", "namespace", &space.name, "pod-security.kubernetes.io/enforce=restricted"]);
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        space.admin(["apply", "--filename", deploy.join("rbac.yaml").to_str().unwrap()]);
        // Of the whole cluster, and so of all tests: two that apply it at once would both find it missing, and one be refused.
        static OF_CLUSTER: Once = Once::new();
        OF_CLUSTER.call_once(|| {
            kubectl(["apply", "--filename", deploy.join("rbac-cluster.yaml").to_str().unwrap()]);
        });
        let account = format!("--serviceaccount={}:keepset", space.name);
        kubectl(["create", "clusterrolebinding", &space.name, "--clusterrole=keepset-snapshot-classes", &account]);
        let secret: Vec<String> = space.secrets().into_iter().map(|(name, value)| format!("--from-literal={name}={value}")).collect();
        let args = ["create", "secret", "generic", "keepset"].into_iter().chain(secret.iter().map(String::as_str));
        space.admin(args);
        space.write_kubeconfig("keepset");
        space.admin(["apply", "--filename", deploy.join("rbac-submit.yaml").to_str().unwrap()]);
        space.admin(["create", "serviceaccount", PERSON]);
        let person = format!("--serviceaccount={}:{PERSON}", space.name);
        space.admin(["create", "rolebinding", PERSON, "--role=keepset-submit", &person]);
        space.write_kubeconfig(PERSON);
        let made = space.keepset(["init"]);
        assert_eq!(made.code, 0, "{}", made.err);
        space
    }

    /// What movers and agents find in the Secret `keepset`.
    pub fn secrets(&self) -> Vec<(String, String)> {
        [
            ("KEEPSET_PASSWORD", PASSWORD.to_owned()),
            ("AWS_ACCESS_KEY_ID", variable("KEEPSET_BED_ACCESS_KEY")),
            ("AWS_SECRET_ACCESS_KEY", variable("KEEPSET_BED_SECRET_KEY")),
            ("AWS_ENDPOINT_URL", variable("KEEPSET_BED_MINIO")),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// A kubeconfig that may do what the account may, and nothing else.
    fn write_kubeconfig(&self, account: &str) {
        let config: Value = serde_json::from_str(&kubectl(["config", "view", "--raw", "--flatten", "--minify", "--output=json"])).unwrap();
        let token = self.admin(["create", "token", account, "--duration=4h"]);
        let own = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "own",
            "clusters": [{ "name": "own", "cluster": config["clusters"][0]["cluster"] }],
            "users": [{ "name": "own", "user": { "token": token.trim() } }],
            "contexts": [{ "name": "own", "context": { "cluster": "own", "user": "own", "namespace": self.name } }],
        });
        std::fs::write(self.kubeconfig(account), own.to_string()).unwrap();
    }

    fn kubeconfig(&self, account: &str) -> PathBuf {
        self.dir.path().join(format!("kubeconfig-{account}"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its repository.
    pub fn location(&self) -> String {
        format!("s3://{}/{}", variable("KEEPSET_BED_BUCKET"), self.name)
    }

    /// `NAMESPACE/NAME` of a set here.
    pub fn set(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }

    /// The administrator's kubectl in this namespace.
    pub fn admin<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> String {
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        kubectl(["--namespace", &self.name].into_iter().chain(args.iter().map(String::as_str)))
    }

    pub fn apply(&self, object: &str) {
        kubectl_with(["--namespace", &self.name, "apply", "--filename=-"], object);
    }

    pub fn get(&self, what: &str) -> Value {
        serde_json::from_str(&self.admin(["get", what, "--output=json"])).unwrap()
    }

    /// Removes a set with its pods and all its claims.
    pub fn remove_set_and_claims(&self, set: &str) {
        let of_set = format!("app={set}");
        self.admin(["delete", "statefulset", set, "--wait=true"]);
        eventually("no pod is left", || self.admin(["get", "pods", "--selector", &of_set, "--output=name"]).is_empty());
        self.admin(["delete", "persistentvolumeclaims", "--selector", &of_set, "--wait=true"]);
    }

    /// The bed's etcd of three members, ready. Its addresses are fixed, and an earlier test's etcd may be on its way out.
    pub fn etcd(&self) {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/cluster/etcd.yaml");
        eventually("the etcd is taken", || {
            let args = ["--namespace", &self.name, "apply", "--filename", manifest];
            Command::new("kubectl").args(args).output().unwrap().status.success()
        });
        self.ready("etcd", 3);
    }

    pub fn etcdctl(&self, command: &str) -> String {
        self.exec("etcd-0", &format!("etcdctl {command}"))
    }

    /// Keys are written as long as the backup of that etcd runs, which must end with a point of one moment.
    pub fn written_during(&self, mut backup: Child) {
        let mut during = 0;
        while backup.try_wait().unwrap().is_none() {
            self.etcdctl(&format!("put during-{during} x"));
            during += 1;
        }
        let backup = ran(backup);
        assert_eq!(backup.code, 0, "{}", backup.err);
        assert!(backup.out.contains("consistency group") && during > 0, "{} {during}", backup.out);
    }

    /// What a command in a pod says. A pod that is frozen while its volumes are cut takes none, and is asked again.
    pub fn exec(&self, pod: &str, command: &str) -> String {
        let args = ["--namespace", &self.name, "exec", pod, "--", "sh", "-c", command];
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let output = Command::new("kubectl").args(args).stdin(Stdio::null()).output().unwrap();
            let complaint = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                return String::from_utf8(output.stdout).unwrap();
            }
            let is_frozen = complaint.contains("paused container");
            assert!(is_frozen && Instant::now() < deadline, "kubectl {}: {complaint}", args.join(" "));
            pause();
        }
    }

    /// keepset, ready to do the work itself with the rights of its Role.
    pub fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keepset"));
        command.args(args).env("KUBECONFIG", self.kubeconfig("keepset")).envs(self.secrets()).env("KEEPSET_HERE", "true");
        self.with_common(&mut command);
        command
    }

    /// keepset as someone outside runs it, who may make Jobs, knows no password and has no key to the store.
    pub fn command_outside<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keepset"));
        command.args(args).env("KUBECONFIG", self.kubeconfig(PERSON));
        self.with_common(&mut command);
        command
    }

    fn with_common(&self, command: &mut Command) {
        command.env("KEEPSET_REPOSITORY", self.location()).env("KEEPSET_CLUSTER", "bed");
        command.env("KEEPSET_IMAGE", variable("KEEPSET_TEST_IMAGE"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    }

    pub fn outside<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Ran {
        ran(self.command_outside(args).spawn().unwrap())
    }

    pub fn keepset<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Ran {
        ran(self.command(args).spawn().unwrap())
    }

    /// It must succeed.
    pub fn ok<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Ran {
        let args: Vec<&str> = args.into_iter().collect();
        let ran = self.keepset(args.iter().copied());
        assert_eq!(ran.code, 0, "keepset {}: {}{}", args.join(" "), ran.out, ran.err);
        ran
    }

    /// Stock restic on the same repository.
    pub fn restic(&self) -> Restic {
        let location = format!("s3:{}/{}/{}", variable("KEEPSET_BED_MINIO"), variable("KEEPSET_BED_BUCKET"), self.name);
        Restic::new(location, PASSWORD).with_variables(self.secrets().into_iter().filter(|(name, _)| name.starts_with("AWS_")))
    }

    pub fn plain(&self, plain: &Plain) {
        let Plain { name, start, replicas, class, policy, when_scaled, command, .. } = plain;
        let mounts: Vec<String> = plain.templates.iter().map(|template| format!("{{name: {template}, mountPath: /{template}}}")).collect();
        let templates: Vec<String> = plain
            .templates
            .iter()
            .map(|template| {
                format!(
                    "{{metadata: {{name: {template}}}, spec: {{accessModes: [ReadWriteOnce], storageClassName: {class}, \
                     resources: {{requests: {{storage: 64Mi}}}}}}}}"
                )
            })
            .collect();
        let first = plain.templates[0];
        self.apply(&format!(
            r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {name}}}
spec:
  serviceName: {name}
  replicas: {replicas}
  ordinals: {{start: {start}}}
  podManagementPolicy: {policy}
  persistentVolumeClaimRetentionPolicy: {{whenDeleted: Retain, whenScaled: {when_scaled}}}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      securityContext: {{runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000, seccompProfile: {{type: RuntimeDefault}}}}
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: {BUSYBOX}
        imagePullPolicy: Never
        securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
        command: [sh, -c, "cut -d' ' -f1 /proc/uptime >/tmp/began; {command}; exec sleep 1000000"]
        readinessProbe: {{exec: {{command: [test, -d, /{first}]}}, periodSeconds: 1}}
        volumeMounts: [{mounts}]
  volumeClaimTemplates: [{templates}]
"#,
            mounts = mounts.join(", "),
            templates = templates.join(", ")
        ));
        self.ready(name, *replicas);
    }

    /// Waits until so many ordinals of the set are ready, and no more are there.
    pub fn ready(&self, set: &str, replicas: u32) {
        eventually(&format!("{replicas} ordinals of {set} are ready"), || {
            let status = &self.get(&format!("statefulset/{set}"))["status"];
            let count = |name: &str| status[name].as_u64().unwrap_or(0);
            count("readyReplicas") == u64::from(replicas) && count("replicas") == u64::from(replicas)
        });
    }

    /// Nothing that a run made beside the set is left.
    pub fn assert_tidy(&self) {
        for kind in ["pods", "persistentvolumeclaims", "volumesnapshots", "configmaps"] {
            eventually(&format!("{kind} of runs are gone"), || {
                self.admin(["get", kind, "--selector=keepset.dev/run", "--output=name"]).is_empty()
            });
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            kubectl(["delete", "namespace", &self.name, "--wait=false"]);
            kubectl(["delete", "clusterrolebinding", &self.name, "--wait=false"]);
        }
    }
}

/// Puts a file that says whose it is into every claim.
pub fn write_names(space: &Space, plain: &Plain, words: &str) {
    for ordinal in plain.start..plain.start + plain.replicas {
        for template in plain.templates {
            let pod = format!("{}-{ordinal}", plain.name);
            space.exec(&pod, &format!("mkdir -p /{template}/d && echo {words} {pod} {template} >/{template}/d/who"));
        }
    }
}

/// Sees a run through.
pub fn ran(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
