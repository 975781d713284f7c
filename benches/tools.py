"""How each tool is told the same thing: make a repository, back a folder up, back it up again, bring it back.

Settings are the tools' own defaults, except for borg, whose default compresses less than the others: zstd level 1. All encrypt.
Each repository starts with an empty cache of its own.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("KEEPSET_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keepset")
PASSWORD = "the benchmark's password"


class Tool:
    """One repository of one tool in `place`, on files or in the bucket `s3` (a dict of endpoint, bucket, prefix, key, secret)."""

    name = ""
    on_s3 = True

    def __init__(self, program, place, s3):
        self.program, self.place, self.s3 = program, place, s3
        self.place.mkdir(parents=True)
        self.repository = place / "repository"
        # The user's own settings of these tools stay out.
        own = ("KEEPSET_", "RESTIC_", "RUSTIC_", "BORG_", "BUPSTASH_", "AWS_", "OPENDAL_")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        self.env.update(XDG_CACHE_HOME=str(place / "cache"), HOME=str(place), TMPDIR=str(place))
        if s3:
            self.env.update(AWS_ACCESS_KEY_ID=s3["key"], AWS_SECRET_ACCESS_KEY=s3["secret"], AWS_REGION="us-east-1",
                            AWS_DEFAULT_REGION="us-east-1", AWS_ENDPOINT_URL=s3["endpoint"], AWS_ENDPOINT=s3["endpoint"],
                            AWS_ALLOW_HTTP="true")
        self.prepare()

    def prepare(self):
        pass

    def init(self):
        raise NotImplementedError

    def backup(self, row):
        raise NotImplementedError

    def restore(self, row, target):
        """The command that fills the empty folder `target`."""
        raise NotImplementedError

    def restored(self, row, target):
        """Where below `target` the set's folders are afterwards."""
        return target / str(row["path"]).lstrip("/")

    def stored(self):
        """Bytes of the repository's objects."""
        place = self.s3["data"] if self.s3 else self.repository
        return sum(os.lstat(os.path.join(base, leaf)).st_size for base, _, leaves in os.walk(place) for leaf in leaves)


class Keepset(Tool):
    name = "keepset"

    def prepare(self):
        self.env.update(KEEPSET_REPOSITORY=f"s3://{self.s3['bucket']}/{self.s3['prefix']}" if self.s3 else str(self.repository))

    def init(self):
        return [self.program, "init", "--generate-password", str(self.place / "password")]

    def backup(self, row):
        self.env.update(KEEPSET_PASSWORD_FILE=str(self.place / "password"))
        return [self.program, "backup", row["set"], "--from", str(row["path"])]

    def restore(self, row, target):
        return [self.program, "restore", row["set"], "--into", str(target)]

    def restored(self, row, target):
        return target


class Restic(Tool):
    name = "restic"

    def prepare(self):
        location = f"s3:{self.s3['endpoint']}/{self.s3['bucket']}/{self.s3['prefix']}" if self.s3 else str(self.repository)
        self.env.update(RESTIC_REPOSITORY=location, RESTIC_PASSWORD=PASSWORD)

    def init(self):
        return [self.program, "init"]

    def backup(self, row):
        return [self.program, "backup", "-q", str(row["path"])]

    def restore(self, row, target):
        return [self.program, "restore", "-q", "latest", "--target", str(target)]


class Rustic(Tool):
    name = "rustic"

    def prepare(self):
        self.env.update(RUSTIC_REPOSITORY="opendal:s3" if self.s3 else str(self.repository), RUSTIC_PASSWORD=PASSWORD, RUSTIC_NO_PROGRESS="true")
        if self.s3:
            options = dict(bucket=self.s3["bucket"], root="/" + self.s3["prefix"], endpoint=self.s3["endpoint"], region="us-east-1",
                           access_key_id=self.s3["key"], secret_access_key=self.s3["secret"])
            self.env.update({f"RUSTIC_REPO_OPT_{name.upper()}": value for name, value in options.items()})

    def init(self):
        return [self.program, "init"]

    def backup(self, row):
        return [self.program, "backup", str(row["path"])]

    def restore(self, row, target):
        return [self.program, "restore", f"latest:{row['path']}", str(target)]

    def restored(self, row, target):
        return target


class Borg(Tool):
    name = "borg"
    on_s3 = False

    def prepare(self):
        self.env.update(BORG_REPO=str(self.repository), BORG_PASSPHRASE=PASSWORD, BORG_BASE_DIR=str(self.place))
        self.archives = 0

    def init(self):
        return [self.program, "init", "-e", "repokey"]

    def backup(self, row):
        self.archives += 1
        return [self.program, "create", "-C", "zstd,1", f"::{self.archives}", str(row["path"])]

    def restore(self, row, target):
        return ["env", "-C", str(target), self.program, "extract", f"::{self.archives}"]


class Bupstash(Tool):
    name = "bupstash"
    on_s3 = False

    def prepare(self):
        self.env.update(BUPSTASH_REPOSITORY=str(self.repository), BUPSTASH_KEY=str(self.place / "key"),
                        BUPSTASH_SEND_LOG=str(self.place / "send-log"), BUPSTASH_QUERY_CACHE=str(self.place / "query-cache"))
        self.items = 0
        subprocess.run([self.program, "new-key", "-o", self.env["BUPSTASH_KEY"]], check=True, env=self.env)

    def init(self):
        return [self.program, "init"]

    def backup(self, row):
        self.items += 1
        return [self.program, "put", "-q", f"name=set-{self.items}", str(row["path"])]

    def restore(self, row, target):
        # Its default leaves owners and xattrs out, which the others bring back.
        return [self.program, "restore", "-q", "--ownership", "--xattrs", "--into", str(target), f"name=set-{self.items}"]

    def restored(self, row, target):
        return target


def install(package):
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SystemExit(f"the benchmark needs {package}; run this and then again:\n  sudo apt-get install -y --no-install-recommends {package}")
    print(f"installing {package}", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", package]):
        subprocess.run(["apt-get", *command], env=env, check=True, stdin=subprocess.DEVNULL)


def debian(program, package):
    """The path of a program from Debian's package."""
    if not shutil.which(program):
        install(package)
    return shutil.which(program) or program


def crate(name, version, program):
    """A peer that cargo builds, once, into the cache."""
    root = CACHE / "bench" / f"{name}-{version}"
    if not (root / "bin" / program).exists():
        print(f"building {name} {version} into {root} (once)", flush=True)
        build = CACHE / "build" / name
        subprocess.run(["cargo", "install", "--quiet", "--locked", "--root", root, "--target-dir", build, f"{name}@{version}"], check=True,
                       stdin=subprocess.DEVNULL)
        shutil.rmtree(build, ignore_errors=True)
    return str(root / "bin" / program)


def keepset():
    if given := os.environ.get("KEEPSET_BENCH_BINARY"):
        return given
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=HERE.parent, check=True)
    about = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version=1"], cwd=HERE.parent, check=True, capture_output=True)
    return str(Path(json.loads(about.stdout)["target_directory"]) / "release" / "keepset")


def bupstash():
    if not Path("/usr/include/sodium.h").exists():
        install("libsodium-dev")
    debian("pkg-config", "pkg-config")
    return crate("bupstash", "0.12.0", "bupstash")


TOOLS = {
    "keepset": (Keepset, keepset),
    "restic": (Restic, lambda: debian("restic", "restic")),
    "borg": (Borg, lambda: debian("borg", "borgbackup")),
    "bupstash": (Bupstash, bupstash),
    "rustic": (Rustic, lambda: crate("rustic-rs", "0.11.4", "rustic")),
}
