"""Makes what the benchmark backs up, once per work folder: real files of this machine, noise, and a real database with two replicas.

Every row is a set as keepset sees one: a folder that holds one folder per claim.
"""

import json
import os
import random
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import tools

VERSION = 1
MB = 1_000_000
# row: (name of the set, what it is)
ROWS = {
    "A": ("tar", "binaries and sources in one tar"),
    "B": ("noise", "random bytes in one file"),
    "C": ("small", "small files in many folders"),
    "D": ("db", "three PostgreSQL members: a primary and two physical replicas"),
}


class Missing(Exception):
    """The row cannot be made on this machine; the text says what would help."""


def row(letter, work, scale):
    """The folder of a row's set, made if it isn't there, and what is in it."""
    name, what = ROWS[letter]
    place = work / "data" / f"{letter}-{scale:g}-v{VERSION}"
    mark = place / "made.json"
    if not mark.exists():
        shutil.rmtree(place, ignore_errors=True)
        made = place / "set"
        made.mkdir(parents=True)
        {"A": tar, "B": noise, "C": small, "D": database}[letter](made, name, scale)
        counts = count(made)
        counts["made"] = time.time()
        mark.write_text(json.dumps(counts))
    counts = json.loads(mark.read_text())
    counts.update(set=f"bench/{name}", path=place / "set", what=what)
    return counts


def count(folder):
    files = folders = size = 0
    for base, names, leaves in os.walk(folder):
        folders += len(names)
        files += len(leaves)
        size += sum(os.lstat(os.path.join(base, leaf)).st_size for leaf in leaves)
    return {"files": files, "folders": folders, "bytes": size}


def real_files(roots, largest):
    """Regular files below the roots that can be read, in an order that depends on their names alone."""
    for root in roots:
        for base, folders, leaves in os.walk(root):
            folders.sort()
            for leaf in sorted(leaves):
                path = os.path.join(base, leaf)
                try:
                    stat = os.lstat(path)
                except OSError:
                    continue
                if os.path.isfile(path) and not os.path.islink(path) and 0 < stat.st_size <= largest:
                    yield path, stat.st_size


def source_roots():
    home = Path.home()
    go = subprocess.run(["go", "env", "GOROOT", "GOMODCACHE"], capture_output=True, text=True).stdout.split() if shutil.which("go") else []
    return [str(home / ".cargo/registry/src"), *go, "/usr/include", "/usr/share", "/usr/lib/python3", "/usr/lib", str(home / ".rustup")]


def tar(made, name, scale):
    """Two thirds programs and libraries, one third sources."""
    claim = made / f"data-{name}-0"
    claim.mkdir()
    with tarfile.open(claim / "files.tar", "w") as out:
        for share, roots in [(0.76, ["/usr/bin", "/usr/lib", str(Path.home() / ".rustup")]), (0.38, source_roots())]:
            left = share * 1000 * MB * scale
            for path, size in real_files(roots, 200 * MB):
                try:
                    with open(path, "rb") as file:
                        entry = tarfile.TarInfo(path.lstrip("/"))
                        entry.size = size
                        out.addfile(entry, file)
                except OSError:
                    continue
                left -= size
                if left <= 0:
                    break


def noise(made, name, scale):
    claim = made / f"data-{name}-0"
    claim.mkdir()
    left, source = int((1 << 30) * scale), random.Random(20260101)
    with open(claim / "noise", "wb") as out:
        while left > 0:
            out.write(source.randbytes(min(left, 1 << 20)))
            left -= 1 << 20


def small(made, name, scale):
    """Up to 100,000 files of at most 48 KiB and 650 MB in all, in the folders that they come from."""
    claim = made / f"data-{name}-0"
    claim.mkdir()
    files, size = int(100_000 * scale), 650 * MB * scale
    for path, length in real_files(source_roots(), 48 << 10):
        if files <= 0 or size <= 0:
            break
        target = claim / path.lstrip("/")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        except OSError:
            continue
        files, size = files - 1, size - length


def database(made, name, scale):
    """pgbench's tables on a primary, two standbys that follow it through thousands of transactions, then all three stopped."""
    if os.geteuid() != 0:
        raise Missing("row D is made by root, who starts PostgreSQL as user postgres; leave it out with --rows A,B,C")
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        tools.install("postgresql")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    programs = found[-1].parent
    sockets = made.parent / "sockets"
    members = [made / f"data-{name}-{ordinal}" for ordinal in range(3)]
    for folder in [sockets, *members]:
        folder.mkdir()
        shutil.chown(folder, "postgres")

    def run(program, *args):
        command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", str(programs / program), *map(str, args)]
        done = subprocess.run(command, cwd=sockets, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{program} {' '.join(map(str, args))}: {done.stderr.strip()}")
        return done.stdout.strip()

    def start(ordinal):
        options = f"-c listen_addresses= -c unix_socket_directories={sockets} -c port={5432 + ordinal} -c fsync=off -c max_wal_size=128MB"
        run("pg_ctl", "start", "-w", "-s", "-D", members[ordinal] / "pgdata", "-l", sockets / f"log-{ordinal}", "-o", options)

    def ask(ordinal, query):
        return run("psql", "-h", sockets, "-p", 5432 + ordinal, "-d", "postgres", "-qAt", "-c", query)

    run("initdb", "-N", "-A", "trust", "-U", "postgres", "-D", members[0] / "pgdata")
    started = []
    try:
        start(0)
        started.append(0)
        run("pgbench", "-h", sockets, "-p", 5432, "-i", "-q", "-s", max(1, round(66 * scale)), "postgres")
        for ordinal in (1, 2):
            run("pg_basebackup", "-h", sockets, "-p", 5432, "-D", members[ordinal] / "pgdata", "-R", "-X", "stream", "-c", "fast", "-N")
            start(ordinal)
            started.append(ordinal)
        run("pgbench", "-h", sockets, "-p", 5432, "-n", "-c", 2, "-t", max(10, round(5000 * scale)), "postgres")
        head = ask(0, "checkpoint; select pg_current_wal_lsn()")
        for ordinal in (1, 2):
            deadline = time.monotonic() + 120
            while ask(ordinal, f"select pg_last_wal_replay_lsn() >= '{head}'") != "t":
                if time.monotonic() > deadline:
                    raise RuntimeError(f"standby {ordinal} does not catch up")
                time.sleep(0.2)
    finally:
        for ordinal in reversed(started):
            run("pg_ctl", "stop", "-w", "-s", "-m", "fast", "-D", members[ordinal] / "pgdata")
    shutil.rmtree(sockets)
