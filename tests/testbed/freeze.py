#!/usr/bin/env python3
"""Freezes a small repository as this version writes it, for all later versions to read: tests/frozen.rs says when.

    tests/testbed/freeze.py target/debug/keepset tests/data/v1

Needs root (devices, owners) and a file system with ACLs. Makes two sets with every kind of file, several points of them, and beside the
repository `expected.json`: what each point must bring back, taken from the folders themselves.
"""
import hashlib, json, os, random, shutil, stat, subprocess, sys, tempfile

ACL = bytes.fromhex("02000000" "01000600ffffffff" "02000600e8030000" "04000400ffffffff" "10000600ffffffff" "20000400ffffffff")


def listing(root):
    """Everything below a folder and the folder itself, as tests/frozen.rs reads it back."""
    seen, links = {}, {}
    paths = [b""]
    while paths:
        path = paths.pop()
        full = os.path.join(os.fsencode(root), path) if path else os.fsencode(root)
        meta = os.lstat(full)
        kind = stat.S_IFMT(meta.st_mode)
        entry = {"mode": f"{meta.st_mode:o}", "owner": f"{meta.st_uid}:{meta.st_gid}", "mtime": str(meta.st_mtime_ns)}
        names = sorted(os.listxattr(full, follow_symlinks=False))
        xattrs = {name: os.getxattr(full, name, follow_symlinks=False).hex() for name in names if name != "security.selinux"}
        if xattrs:
            entry["xattrs"] = xattrs
        if kind == stat.S_IFREG:
            entry["sha256"] = hashlib.sha256(open(full, "rb").read()).hexdigest()
        elif kind == stat.S_IFLNK:
            entry["target"] = os.readlink(full).hex()
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            entry["device"] = meta.st_rdev
        elif kind == stat.S_IFDIR:
            paths += [os.path.join(path, name) if path else name for name in os.listdir(full)]
        if kind != stat.S_IFDIR and meta.st_nlink > 1:
            links.setdefault(meta.st_ino, []).append(path.hex())
        seen[path.hex()] = entry
    for group in links.values():
        for path in group:
            seen[path]["links"] = sorted(group)
    return seen


def fill(claim, seed):
    """Every kind of entry that a volume can hold."""
    dice = random.Random(seed)
    os.makedirs(claim + "/base/16384")
    os.makedirs(claim + "/empty")
    c = os.fsencode(claim)
    def write(name, data):
        with open(os.path.join(c, name), "wb") as file:
            file.write(data)
    write(b"base/16384/1259", dice.randbytes(20_000))
    write(b"log", b"".join(b"%08d the same line over and over, but for its number %d\n" % (n, seed) for n in range(25_000)))
    write(b"none", b"")
    write(b"not utf-8 \xff\xfe", b"x")
    write(b"a\nnew line, \"quotes\" and \\ backslash", b"y")
    write("größe 🙂".encode(), b"z")
    write(b"n" * 255, b"long")
    with open(claim + "/sparse", "wb") as file:
        file.truncate(3 << 20)
        file.seek(2 << 20)
        file.write(dice.randbytes(5000))
    os.link(claim + "/log", claim + "/base/log too")
    os.symlink("base/16384/1259", claim + "/link")
    os.symlink(b"\xff nowhere", c + b"/dangling")
    os.mkfifo(claim + "/fifo")
    os.mknod(claim + "/socket", stat.S_IFSOCK | 0o755)
    os.mknod(claim + "/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(claim + "/disk", stat.S_IFBLK | 0o660, os.makedev(259, 65537))
    os.chown(claim + "/base", 999, 998)
    os.lchown(claim + "/link", 1000, 1001)
    os.chmod(claim + "/base", 0o2750)
    os.chmod(claim + "/none", 0o4711)
    os.chmod(claim + "/empty", 0o1777)
    os.setxattr(claim + "/log", "user.note", b"\0\xff bytes")
    os.setxattr(claim + "/log", "system.posix_acl_access", ACL)
    os.setxattr(claim + "/base", "system.posix_acl_default", ACL)
    os.setxattr(claim + "/none", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    for number, name in enumerate(sorted(os.listdir(c))):
        # Before 1970, after 2038, and with every digit of its nanoseconds.
        times = [-1_000_000_000, 1_234_567_890_123_456_789, 5_000_000_000_000_000_001][number % 3]
        os.utime(os.path.join(c, name), ns=(times, times), follow_symlinks=False)
    os.utime(claim, ns=(1_700_000_000_000_000_007,) * 2)


def main():
    program, target = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    if os.path.exists(target):
        sys.exit(f"{target} is there already: what is frozen never changes, make another folder")
    os.makedirs(target)
    work = tempfile.mkdtemp()
    with open(work + "/settings.yaml", "w") as settings:
        settings.write("cluster: frozen\n")
    env = {"PATH": os.environ["PATH"], "KEEPSET_REPOSITORY": target + "/repository", "KEEPSET_CONFIG": work + "/settings.yaml"}

    def keepset(*args):
        done = subprocess.run([program, *args, "--json"], env=env, stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)

    keepset("init", "--generate-password", target + "/password")
    env["KEEPSET_PASSWORD_FILE"] = target + "/password"
    points = {}

    def backup(name):
        live = f"{work}/{name}"
        point = keepset("backup", f"shop/{name}", "--from", live)["backups"][0]["point"]
        points[point] = {"set": f"shop/{name}", "claims": {claim: listing(f"{live}/{claim}") for claim in sorted(os.listdir(live))}}

    for ordinal in (0, 1):
        fill(f"{work}/web/data-web-{ordinal}", ordinal)
    backup("web")
    with open(work + "/web/data-web-1/log", "ab") as log:
        log.write(b"one more line\n")
    os.remove(work + "/web/data-web-1/sparse")
    os.rename(work + "/web/data-web-0/empty", work + "/web/data-web-0/still empty")
    backup("web")
    os.makedirs(work + "/db/data-db-9")
    os.makedirs(work + "/db/data-db-10/wal")
    for ordinal in (9, 10):
        with open(f"{work}/db/data-db-{ordinal}/table", "wb") as table:
            table.write(random.Random(ordinal).randbytes(3000))
    backup("db")
    os.makedirs(work + "/web/data-web-2")
    backup("web")
    with open(target + "/expected.json", "w") as expected:
        json.dump(points, expected, indent=1, sort_keys=True)
        expected.write("\n")
    shutil.rmtree(work)
    size = sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(target) for name in names)
    print(f"{target}: {len(points)} points in {size} bytes; add the folder to the table of tests/frozen.rs")


main()
