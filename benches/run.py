#!/usr/bin/env python3
"""How fast, how big and how hungry is keepset beside its peers, on the same work, in turn, in one run?

Every round does every row (data), place (files, MinIO) and tool once, and starts with another tool than the round before. What is printed
is the median of the rounds. All data, repositories and targets lie in one work folder: in memory where there is room, so that the disk does
not blur the picture. The first round compares every byte that was restored with its source.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import data
import tools

HERE = Path(__file__).resolve().parent
TASKS = ["first backup", "unchanged", "restore"]
# Of the peers only these speak S3.
PLACES = ["files", "s3"]
# keepset reads a file again whose ctime is less than two minutes before the last backup: data must be older than that for it to be fair.
SETTLED = 125


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", default="A,B,C,D", help="; ".join(f"{row}: {what}" for row, (_, what) in data.ROWS.items()))
    parser.add_argument("--tools", default="keepset,restic,borg,bupstash" + (",rustic" if os.environ.get("RUSTIC") == "1" else ""))
    parser.add_argument("--places", default="files,s3")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="size of the data, 1 for the real thing")
    parser.add_argument("--work", type=Path, help="the work folder; made data stays in it for the next run")
    parser.add_argument("--json", type=Path, help="write every single measurement to this file, too")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one command")
    parser.add_argument("--no-verify", action="store_true", help="do not compare what was restored")
    parser.add_argument("--data-only", action="store_true", help="make the data and the tools, measure nothing")
    return parser.parse_args()


def work_folder(scale):
    """/dev/shm where it has room for data, repository and target of the biggest row, else a folder on disk that postgres can enter."""
    need = int(16e9 * scale)
    memory = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in open("/proc/meminfo")}
    shm = Path("/dev/shm")
    if (shm / "keepset-bench").exists() or (shm.is_dir() and shutil.disk_usage(shm).free > need and memory["MemAvailable"] > need + 2e9):
        return shm / "keepset-bench"
    return Path("/var/tmp/keepset-bench")


class Minio:
    """A real MinIO in the work folder; one bucket, emptied between tools."""

    def __init__(self, work):
        program = os.environ.get("KEEPSET_TEST_MINIO") or subprocess.run(
            [HERE.parent / "tests/testbed/minio.sh"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        self.place = work / "minio"
        shutil.rmtree(self.place, ignore_errors=True)
        (self.place / "bench").mkdir(parents=True)
        self.key, self.secret = "bench", "%032x" % random.SystemRandom().getrandbits(128)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        env = {**os.environ, "MINIO_ROOT_USER": self.key, "MINIO_ROOT_PASSWORD": self.secret, "MINIO_BROWSER": "off", "MINIO_CI_CD": "1", "HOME": str(work)}
        self.log = open(work / "minio.log", "w")
        self.process = subprocess.Popen([program, "server", "--quiet", "--address", f"127.0.0.1:{port}", str(self.place)], env=env, stdout=self.log,
                                        stderr=self.log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.1)
        self.stop()
        raise SystemExit(f"MinIO did not start: {(work / 'minio.log').read_text()[-500:]}")

    def prefix(self, name):
        return {"endpoint": self.endpoint, "bucket": "bench", "prefix": name, "key": self.key, "secret": self.secret, "data": self.place / "bench" / name}

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()


def measured(tool, command, timeout, work):
    """What measure.py says of the command; what the command printed goes along where it failed."""
    result = work / "measured.json"
    result.unlink(missing_ok=True)
    with tempfile.TemporaryFile() as output:
        subprocess.run([sys.executable, "-S", "-E", HERE / "measure.py", result, str(timeout), *command], env=tool.env, stdout=output,
                       stderr=output, stdin=subprocess.DEVNULL, check=False)
        output.seek(0)
        said = output.read().decode(errors="replace")
    figures = json.loads(result.read_text()) if result.exists() else {"code": "not started"}
    if figures["code"] != "0":
        figures["said"] = said[-400:]
    return figures


def differences(source, target):
    """What `diff` finds between the trees: nothing at all, or the first lines of it."""
    found = subprocess.run(["diff", "-rq", "--no-dereference", source, target], capture_output=True, text=True)
    return (found.stdout + found.stderr).splitlines()[:3]


def lost_attributes(source, target):
    def listing(folder):
        lines = subprocess.run(["find", ".", "-mindepth", "1", "-printf", "%p %y %m %U:%G %T@ %s %l\\n"], cwd=folder, capture_output=True, check=True)
        # A folder's size is the file system's business.
        return {b" ".join(part for i, part in enumerate(line.split(b" ")) if not (i == 5 and b" d " in line)) for line in lines.stdout.split(b"\n")}

    return [line.decode(errors="replace") for line in sorted(listing(source) ^ listing(target))[:3]]


def one(name, program, row, place, minio, work, options, verify):
    """All tasks of one tool on one row, in a repository and a target of their own."""
    kind = tools.TOOLS[name][0]
    home, target = work / "run" / name, work / "run" / "target"
    shutil.rmtree(work / "run", ignore_errors=True)
    target.mkdir(parents=True)
    tool = kind(program, home, minio.prefix(name) if place == "s3" else None)
    figures = {}
    made = measured(tool, tool.init(), options.timeout, work)
    if made["code"] == "0":
        for task in TASKS:
            figures[task] = measured(tool, tool.restore(row, target) if task == "restore" else tool.backup(row), options.timeout, work)
            if figures[task]["code"] != "0":
                break
            if task == "first backup":
                figures[task]["stored"] = tool.stored()
    else:
        figures["init"] = made
    if verify and figures.get("restore", {}).get("code") == "0":
        wrong = differences(row["path"], tool.restored(row, target))
        if name == "keepset":
            wrong += lost_attributes(row["path"], tool.restored(row, target))
        if wrong:
            figures["restore"].update(code="wrong data", said="; ".join(wrong))
    if tool.s3:
        shutil.rmtree(tool.s3["data"], ignore_errors=True)
    shutil.rmtree(work / "run", ignore_errors=True)
    return figures


def median(samples, field):
    values = [sample[field] for sample in samples if field in sample]
    return statistics.median(values) if values else None


def report(measurements, names, rows):
    """The table, and the rows on which keepset is not ahead of every peer."""
    behind = []

    def cell(value, unit, digits):
        return "-" if value is None else f"{value / unit:.{digits}f}"

    for (letter, place) in dict.fromkeys((m["row"], m["place"]) for m in measurements):
        row = rows[letter]
        print(f"\n{letter} on {place}: {row['what']}: {row['bytes'] / 1e9:.2f} GB, {row['files']:,} files in {row['folders']:,} folders")
        print(f"  {'':22}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}{'tree MB':>9}{'stored MB':>11}   keepset takes")
        for task in TASKS:
            print(f"  {task}")
            ours = None
            for name in names:
                samples = [m for m in measurements if (m["row"], m["place"], m["tool"], m["task"]) == (letter, place, name, task)]
                if not samples:
                    continue
                good = [sample for sample in samples if sample["code"] == "0"]
                wall, stored = median(good, "wall"), median(good, "stored")
                line = (f"    {name:20}{cell(wall, 1, 2):>8}{cell(median(good, 'cpu'), 1, 2):>8}{cell(median(good, 'peak'), 1e6, 0):>9}"
                        f"{cell(median(good, 'together'), 1e6, 0):>9}{cell(stored, 1e6, 1):>11}")
                if name == "keepset":
                    ours = (wall, stored)
                elif ours and ours[0] and wall:
                    line += f"   {ours[0] / wall:.2f} of its time"
                    if stored and ours[1]:
                        line += f", {ours[1] / stored:.3f} of its size"
                    if ours[0] > wall:
                        behind.append(f"{letter} {place} {task}: {name} is faster ({wall:.2f} s, keepset {ours[0]:.2f} s)")
                    if name == "restic" and stored and ours[1] and ours[1] > stored:
                        behind.append(f"{letter} {place} {task}: restic stores less ({stored / 1e6:.1f} MB, keepset {ours[1] / 1e6:.1f} MB)")
                failed = [sample for sample in samples if sample["code"] != "0"]
                if failed:
                    line += f"   {len(failed)} of {len(samples)} FAILED ({failed[0]['code']})"
                print(line)
    if "keepset" in names and len(names) > 1:
        print("\nkeepset is behind on:\n  " + "\n  ".join(behind) if behind else "\nkeepset is ahead of every peer that ran, on every row")


def main():
    options = arguments()
    letters, names, places = (part.split(",") for part in (options.rows, options.tools, options.places))
    for value, known, what in [(letters, data.ROWS, "row"), (names, tools.TOOLS, "tool"), (places, PLACES, "place")]:
        if unknown := [one for one in value if one not in known]:
            raise SystemExit(f"no such {what}: {', '.join(unknown)}; there are: {', '.join(known)}")
    work = options.work or work_folder(options.scale)
    work.mkdir(parents=True, exist_ok=True)
    programs = {name: tools.TOOLS[name][1]() for name in names}
    rows = {}
    for letter in letters:
        print(f"data for row {letter}: {data.ROWS[letter][1]}", flush=True)
        try:
            rows[letter] = data.row(letter, work, options.scale)
        except data.Missing as missing:
            raise SystemExit(str(missing)) from None
    if options.data_only:
        return
    wait = max(row["made"] for row in rows.values()) + SETTLED - time.time()
    if wait > 0:
        print(f"waiting {wait:.0f} s, until the data is old enough to be taken as settled", flush=True)
        time.sleep(wait)

    cores, load = os.cpu_count(), os.getloadavg()[0]
    versions = {"restic": ["version"], "borg": ["--version"], "bupstash": ["version"], "rustic": ["--version"], "keepset": ["--version"]}
    for name in names:
        said = subprocess.run([programs[name], *versions[name]], capture_output=True, text=True).stdout.strip()
        print(f"  {name}: {said.splitlines()[0] if said else '?'}")
    print(f"  {cores} cores, load {load:.1f}, everything in {work}, {options.rounds} rounds, scale {options.scale:g}", flush=True)
    minio = Minio(work) if "s3" in places else None
    measurements = []
    try:
        for round_number in range(options.rounds):
            for letter, row in rows.items():
                for place in places:
                    able = [name for name in names if place == "files" or tools.TOOLS[name][0].on_s3]
                    turn = round_number % len(able)
                    for name in able[turn:] + able[:turn]:
                        figures = one(name, programs[name], row, place, minio, work, options, round_number == 0 and not options.no_verify)
                        for task, figure in figures.items():
                            measurements.append({"round": round_number, "row": letter, "place": place, "tool": name, "task": task, **figure})
                            if figure["code"] != "0":
                                print(f"  {name} {letter} {place} {task}: {figure['code']}: {figure.get('said', '').strip()}", flush=True)
                        walls = ", ".join(f"{task} {figure['wall']:.2f} s" for task, figure in figures.items() if "wall" in figure)
                        print(f"  round {round_number + 1} {letter} {place} {name}: {walls}", flush=True)
                        if options.json:
                            options.json.write_text(json.dumps({"cores": cores, "scale": options.scale, "measurements": measurements}, indent=1))
    finally:
        if minio:
            minio.stop()
        shutil.rmtree(work / "run", ignore_errors=True)
    report(measurements, names, rows)
    if any(m["code"] != "0" for m in measurements):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
