#!/usr/bin/env python3
"""Backs up and restores a million small files and a large file that is nearly all holes, under a memory limit that kills.

Usage: memory.py [--files N] [--one-folder] [--sparse GIB] [--limit MIB] [--work DIR] [--keepset PROGRAM]

The extremes: `--sparse 15360` is a file of 15 TiB, `--one-folder` puts a million names into one tree.

The limit holds for the whole program, workers included, by a control group of its own where this user may make one; else for each
process alone, by what it may take of data (`ulimit -d`). What comes back is compared byte by byte. The work folder must be on a disk:
files in memory would count as the program's.
"""

import argparse
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from measure import resident, tree

PER_FOLDER = 1000
MIB = 1 << 20


def make_small(root, files, one_folder):
    dice = random.Random(1)
    for first in range(0, files, PER_FOLDER):
        folder = root / ("all" if one_folder else "%05d" % (first // PER_FOLDER))
        folder.mkdir(exist_ok=True)
        at = os.open(folder, os.O_RDONLY)
        for number in range(first, min(first + PER_FOLDER, files)):
            file = os.open("%07d" % number, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=at)
            os.write(file, dice.randbytes(30 + number % 50))
            os.close(file)
        os.close(at)


def make_sparse(path, size):
    dice = random.Random(2)
    with open(path, "wb") as file:
        file.truncate(size)
        for part in range(16):
            file.seek(size // 16 * part + dice.randrange(MIB))
            file.write(dice.randbytes(3 * MIB))


def own_group(limit):
    """A control group with this limit, version 2 or 1; None where there can be none."""
    lines = pathlib.Path("/proc/self/cgroup").read_text().split()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, name = pathlib.Path("/sys/fs/cgroup" + path), "memory.max"
        elif "memory" in controllers.split(","):
            base, name = pathlib.Path("/sys/fs/cgroup/memory" + path), "memory.limit_in_bytes"
        else:
            continue
        group = base / ("keepset-%d" % os.getpid())
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / name).write_text(str(limit))
            swap = group / "memory.swap.max"
            if swap.exists():
                swap.write_text("0")
            return group
        except OSError:
            group.rmdir()
    return None


def run(command, limit, environment):
    """Runs it under the limit; gives its seconds and the most memory that it and its workers had together."""
    group = own_group(limit)
    if group:
        shell = 'echo $$ > "%s/cgroup.procs" && exec "$@"' % group
    else:
        shell = 'ulimit -d %d && exec "$@"' % (limit // 1024)
    begin, most, done = time.monotonic(), [0], threading.Event()
    process = subprocess.Popen(["sh", "-c", shell, "sh", *command], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def watch():
        while not done.wait(0.02):
            most[0] = max(most[0], sum(resident(one) for one in tree(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, said = process.communicate()
    done.set()
    watcher.join()
    if group:
        group.rmdir()
    if process.returncode != 0:
        sys.exit("%s ended with %d under %d MiB:\n%s" % (command[1], process.returncode, limit // MIB, said.decode()[-2000:]))
    return time.monotonic() - begin, most[0], "group" if group else "each process"


def next_data(file, at, size):
    try:
        return os.lseek(file, at, os.SEEK_DATA)
    except OSError:
        return size


def same_bytes(a, b):
    """Compares two files by the runs of data that either has: terabytes of hole take no time."""
    one, other = os.open(a, os.O_RDONLY), os.open(b, os.O_RDONLY)
    try:
        size, at = os.fstat(one).st_size, 0
        if os.fstat(other).st_size != size:
            return False
        while (at := min(next_data(one, at, size), next_data(other, at, size))) < size:
            piece = os.pread(one, MIB, at)
            if piece != os.pread(other, MIB, at):
                return False
            at += len(piece)
        return True
    finally:
        os.close(one)
        os.close(other)


def compare(a, b):
    for folder, folders, files in os.walk(a):
        other = os.path.join(b, os.path.relpath(folder, a))
        if sorted(folders + files) != sorted(os.listdir(other)):
            sys.exit("%s has other names than %s" % (other, folder))
        differing = [file for file in files if not same_bytes(os.path.join(folder, file), os.path.join(other, file))]
        if differing:
            sys.exit("%s: %s came back wrong" % (other, differing[:3]))
        for file in files:
            if os.stat(os.path.join(other, file)).st_blocks > os.stat(os.path.join(folder, file)).st_blocks + 4096:
                sys.exit("%s: its holes did not come back" % os.path.join(other, file))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--one-folder", action="store_true", help="all in one, whose tree is one object")
    parser.add_argument("--sparse", type=int, default=20, metavar="GIB")
    parser.add_argument("--limit", type=int, default=128, metavar="MIB")
    parser.add_argument("--work", default="/var/tmp")
    parser.add_argument("--keepset", default="target/release/keepset")
    args = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="keepset-memory-", dir=args.work))
    try:
        claims = [work / "set" / ("data-web-%d" % ordinal) for ordinal in range(2)]
        for claim in claims:
            claim.mkdir(parents=True)
        make_small(claims[0], args.files, args.one_folder)
        make_sparse(claims[1] / "disk.img", args.sparse << 30)
        program = os.path.abspath(args.keepset)
        environment = dict(os.environ, KEEPSET_REPOSITORY=str(work / "repository"), KEEPSET_PASSWORD="memory")
        subprocess.run([program, "init"], env=environment, check=True, capture_output=True)
        back_up = [program, "backup", "test/web", "--from", str(work / "set")]
        verbs = [
            ("first backup", back_up),
            ("again, unchanged", back_up),
            ("restore", [program, "restore", "test/web", "--into", str(work / "back")]),
        ]
        for name, command in verbs:
            seconds, most, held = run(command, args.limit * MIB, environment)
            print("%-18s %7.1f s %6.1f MiB of %d (%s)" % (name, seconds, most / MIB, args.limit, held), flush=True)
        compare(work / "set", work / "back")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
