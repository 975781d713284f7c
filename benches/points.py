#!/usr/bin/env python3
"""How long does a small backup take beside thousands of points, when every request to the store takes its time?

A set of three ordinals, a few files changed for each point, in a MinIO on this machine, behind a proxy that holds every piece of an answer
back for a while, as a distance does. restic backs the same folder up into the same repository, as a new pod would: without a cache.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import threading
import time
from pathlib import Path

import run
import tools


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--points", default="100,500,2000", help="measure when there are so many")
    parser.add_argument("--delay", type=float, default=10, help="ms by which each answer comes later")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--program", action="append", help="this keepset, or several to compare; the one that was just built where left out")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/keepset-bench/points"))
    return parser.parse_args()


class Distance:
    """A port that leads to another one, from where answers come late."""

    def __init__(self, port, delay):
        self.delay = delay
        self.target = port
        started = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self.serve(started)), daemon=True).start()
        started.wait()

    async def serve(self, started):
        server = await asyncio.start_server(self.connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await server.serve_forever()

    async def connected(self, reader, writer):
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        await asyncio.gather(self.pump(reader, there_writer, 0), self.pump(there_reader, writer, self.delay / 1000))

    async def pump(self, source, sink, delay):
        try:
            while piece := await source.read(1 << 20):
                if delay:
                    await asyncio.sleep(delay)
                sink.write(piece)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


class Restic:
    """Enough of a tool for run.measured."""

    def __init__(self, keepset, port, prefix):
        self.env = {**keepset.env, "RESTIC_PASSWORD_FILE": str(keepset.place / "password"),
                    "RESTIC_REPOSITORY": f"s3:http://127.0.0.1:{port}/bench/{prefix}"}


def main():
    options = arguments()
    programs = options.program or [tools.TOOLS["keepset"][1]()]
    restic = tools.TOOLS["restic"][1]()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    source = options.work / "set"
    for ordinal in range(3):
        folder = source / f"data-web-{ordinal}"
        folder.mkdir(parents=True)
        for n in range(20):
            (folder / f"file-{n}").write_bytes(os.urandom(20_000))
    row = {"set": "shop/web", "path": source}
    minio = run.Minio(options.work)
    try:
        near = tools.Keepset(programs[0], options.work / "tool", minio.prefix("points"))
        subprocess.run(near.init(), env=near.env, check=True, stdout=subprocess.DEVNULL)
        port = Distance(int(minio.endpoint.rsplit(":", 1)[1]), options.delay).port
        command = near.backup(row)
        far = tools.Keepset(programs[0], options.work / "far", {**minio.prefix("points"), "endpoint": f"http://127.0.0.1:{port}"})
        far.env["KEEPSET_PASSWORD_FILE"] = near.env["KEEPSET_PASSWORD_FILE"]
        stock = Restic(near, port, "points")
        made = 0
        for goal in map(int, options.points.split(",")):
            started = time.monotonic()
            while made < goal:
                for ordinal in range(3):
                    (source / f"data-web-{ordinal}" / f"file-{made % 20}").write_bytes(os.urandom(2_000))
                subprocess.run(command, env=near.env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                made += 1
            stored = {folder: sum(len(files) for _, _, files in os.walk(minio.place / "bench" / "points" / folder))
                      for folder in ["snapshots", "index", "x-keepset/bundles"]}
            print(f"{made} points ({time.monotonic() - started:.0f} s), objects: {stored}", flush=True)
            commands = {program: (far, [program, *command[1:]]) for program in programs}
            commands |= {f"{program} list": (far, [program, "list"]) for program in programs}
            commands["restic --no-cache"] = (stock, [restic, "--no-cache", "backup", "-q", str(source)])
            for name, (tool, words) in commands.items():
                figures = [run.measured(tool, words, 900, options.work) for _ in range(options.rounds)]
                bad = [figure for figure in figures if figure["code"] != "0"]
                if bad:
                    raise SystemExit(f"{name}: {bad[0]}")
                walls = [figure["wall"] for figure in figures]
                print(f"  {name}: {statistics.median(walls):.2f} s ({', '.join(f'{wall:.2f}' for wall in walls)}), "
                      f"{max(figure['peak'] for figure in figures) / 1e6:.0f} MB", flush=True)
    finally:
        minio.stop()
        shutil.rmtree(options.work, ignore_errors=True)


if __name__ == "__main__":
    main()
