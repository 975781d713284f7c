#!/usr/bin/env python3
"""Times a set of three pods with a gigabyte of files each: backup, backup unchanged, restore to the last pod ready.

Usage, in a test bed that has the program as an image (tests/testbed/cluster/README.md):

    enter.sh benches/cluster.py --data DIR --keepset PROGRAM [--image IMAGE] [--class CLASS]

DIR holds one folder for each ordinal. Each call is timed from the outside, as whoever types it sees it. For how long of it movers were at work
is told by their pods; the rest is orchestration, and the cluster's. Their memory is that of their control groups, which count the kernel's
caches too; of it "own" is anonymous memory, and "process" what the kernel says was the most that the program had.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

SPACE = "bench"
SET = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: bench}
spec:
  serviceName: db
  replicas: %d
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: localhost/busybox:1
        imagePullPolicy: Never
        command: [sleep, "1000000"]
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        volumeMounts: [{name: data, mountPath: /data}]
        readinessProbe: {exec: {command: [test, -e, /data/filled]}, periodSeconds: 1}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], storageClassName: %s, resources: {requests: {storage: 4Gi}}}
"""


def kubectl(*args, text=None):
    done = subprocess.run(["kubectl", *args], input=text, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit("kubectl %s: %s" % (" ".join(args), done.stderr))
    return done.stdout


def fill(data):
    """Every ordinal's folder, into its pod's volume, as the pod's own user."""
    for number, folder in enumerate(sorted(data.iterdir())):
        tar = subprocess.Popen(["tar", "-C", str(folder), "-cf", "-", "."], stdout=subprocess.PIPE)
        into = ["kubectl", "-n", SPACE, "exec", "-i", "db-%d" % number, "--", "tar", "-C", "/data", "-xof", "-"]
        if subprocess.run(into, stdin=tar.stdout).returncode != 0:
            sys.exit("cannot fill ordinal %d" % number)
        kubectl("-n", SPACE, "exec", "db-%d" % number, "--", "touch", "/data/filled")


class Watch(threading.Thread):
    """The most memory that the control groups of movers had together while this runs, what of it was the programs' own, and when movers ran."""

    def __init__(self):
        super().__init__(daemon=True)
        self.over, self.peak, self.own = threading.Event(), 0, 0
        self.began = time.time()
        self.pods = subprocess.Popen(
            ["kubectl", "-n", SPACE, "get", "pods", "--selector=keepset.dev/run", "--watch", "--output=json"], stdout=subprocess.PIPE, text=True
        )
        self.said = []
        self.reader = threading.Thread(target=lambda: self.said.append(self.pods.stdout.read()), daemon=True)
        self.reader.start()

    def end(self):
        self.over.set()
        self.join()
        self.pods.terminate()
        self.reader.join()

    def at_work(self):
        """Seconds in which at least one mover's container ran; the cluster tells them by the second."""
        text, at, runs = "".join(self.said), 0, {}
        decoder = json.JSONDecoder()
        while at < len(text):
            if text[at].isspace():
                at += 1
                continue
            pod, at = decoder.raw_decode(text, at)
            for container in pod.get("status", {}).get("containerStatuses", []):
                ended = container.get("state", {}).get("terminated")
                if ended:
                    stamp = lambda name: datetime.datetime.fromisoformat(ended[name].replace("Z", "+00:00")).timestamp()
                    # Those of the run before may still be there.
                    if stamp("startedAt") >= int(self.began):
                        runs[pod["metadata"]["name"]] = (stamp("startedAt"), stamp("finishedAt"))
        if os.environ.get("KEEPSET_BENCH_TIMES"):
            for name, (began, ended) in sorted(runs.items()):
                print("  %s ran from %.0f s to %.0f s" % (name, began - self.began, ended - self.began))
        whole, reached = 0.0, 0.0
        for began, ended in sorted(runs.values()):
            whole += max(0.0, ended - max(began, reached))
            reached = max(reached, ended)
        return whole

    def run(self):
        root = pathlib.Path("/sys/fs/cgroup")
        while not self.over.wait(0.05):
            # Of the first and of the second version of control groups.
            stats = [stat for top in ("*/kubepods", "memory/*/kubepods", "kubepods*") for stat in self.find(root, top)]
            used, own = (sum(part) for part in zip((0, 0), *map(self.look, stats)))
            self.peak, self.own = max(self.peak, used), max(self.own, own)

    @staticmethod
    def find(root, top):
        try:
            return list(root.glob(top + "/burstable*/*pod*/memory.stat"))
        except OSError:
            # One that went meanwhile.
            return []

    @staticmethod
    def look(stat):
        try:
            values = dict(line.split() for line in stat.read_text().splitlines())
            usage = stat.parent / "memory.current"
            usage = usage if usage.exists() else stat.parent / "memory.usage_in_bytes"
            return int(usage.read_text()), int(values.get("total_rss", values.get("anon", 0)))
        except (OSError, ValueError):
            return 0, 0


def timed(keepset, environment, *args):
    watch = Watch()
    watch.start()
    began = time.monotonic()
    done = subprocess.run([keepset, *args, "--json"], env=environment, capture_output=True, text=True)
    wall = time.monotonic() - began
    watch.end()
    if done.returncode != 0:
        sys.exit("keepset %s: %s" % (" ".join(args), done.stderr))
    return wall, watch, json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--keepset", required=True)
    parser.add_argument("--image", default="localhost/keepset:bed")
    parser.add_argument("--class", dest="storage", default="keepset-csi")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    bed = os.environ
    store = {
        "KEEPSET_PASSWORD": "correct horse battery staple",
        "AWS_ACCESS_KEY_ID": bed["KEEPSET_BED_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": bed["KEEPSET_BED_SECRET_KEY"],
        "AWS_ENDPOINT_URL": bed["KEEPSET_BED_MINIO"],
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
    }
    kubectl("create", "namespace", SPACE)
    kubectl("-n", SPACE, "create", "secret", "generic", "keepset", *("--from-literal=%s=%s" % pair for pair in store.items()))
    kubectl("apply", "--filename", "-", text=SET % (len(list(options.data.iterdir())), options.storage))
    for number in range(len(list(options.data.iterdir()))):
        kubectl("-n", SPACE, "wait", "--for=jsonpath={.status.phase}=Running", "pod/db-%d" % number, "--timeout=120s")
    fill(options.data)
    kubectl("-n", SPACE, "rollout", "status", "statefulset/db", "--timeout=120s")
    print("%-22s %8s %12s %12s %12s %12s" % ("", "wall s", "movers s", "group MB", "own MB", "process MB"))
    for round in range(options.rounds):
        location = "s3://%s/bench-%d" % (bed["KEEPSET_BED_BUCKET"], round)
        environment = {**bed, **store, "KEEPSET_REPOSITORY": location, "KEEPSET_CLUSTER": "bench", "KEEPSET_IMAGE": options.image, "KEEPSET_HERE": "true"}
        subprocess.run([options.keepset, "init"], env=environment, check=True, capture_output=True)
        rows = [("first backup", ("backup", SPACE + "/db")), ("unchanged backup", ("backup", SPACE + "/db"))]
        for name, args in rows:
            wall, watch, answer = timed(options.keepset, environment, *args)
            process = answer["backups"][0]["total"]["peakBytes"]
            print("%-22s %8.1f %12.0f %12.0f %12.0f %12.0f" % (name, wall, watch.at_work(), watch.peak / 1e6, watch.own / 1e6, process / 1e6), flush=True)
        # As after a loss: neither set nor claims.
        manifest = SET % (len(list(options.data.iterdir())), options.storage)
        kubectl("-n", SPACE, "delete", "statefulset", "db", "--wait=true")
        kubectl("-n", SPACE, "wait", "--for=delete", "pod", "--selector=app=db", "--timeout=120s")
        kubectl("-n", SPACE, "delete", "persistentvolumeclaims", "--all", "--wait=true")
        began = time.monotonic()
        wall, watch, answer = timed(options.keepset, environment, "restore", SPACE + "/db")
        kubectl("apply", "--filename", "-", text=manifest)
        kubectl("-n", SPACE, "rollout", "status", "statefulset/db", "--timeout=120s")
        whole = time.monotonic() - began
        process = answer["total"]["peakBytes"]
        print("%-22s %8.1f %12.0f %12.0f %12.0f %12.0f" % ("restore", wall, watch.at_work(), watch.peak / 1e6, watch.own / 1e6, process / 1e6), flush=True)
        print("%-22s %8.1f" % ("… to the last pod", whole), flush=True)
        same(options.data)


def same(data):
    """What the pods see is what was put there."""
    for number, folder in enumerate(sorted(data.iterdir())):
        sums = "cd /data && find . -type f ! -name filled | sort | xargs sha256sum"
        there = subprocess.run(["kubectl", "-n", SPACE, "exec", "db-%d" % number, "--", "sh", "-c", sums], capture_output=True, text=True).stdout
        here = subprocess.run(["sh", "-c", sums.replace("/data", str(folder))], capture_output=True, text=True).stdout
        if there != here or not here:
            sys.exit("ordinal %d did not come back as it was" % number)


if __name__ == "__main__":
    main()
