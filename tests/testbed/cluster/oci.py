#!/usr/bin/env python3
"""Packs a folder as an image: an OCI layout in one tar file, equal byte for byte for equal content.

    oci.py ROOT OUT.tar NAME [--entrypoint A --entrypoint B …] [--user UID:GID]

Everything in it belongs to root, with the mode that it has in the folder. One layer, not compressed: it never leaves this machine.
"""
import argparse, hashlib, io, json, os, platform, stat, tarfile

LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


def layer(root):
    """The folder as a tar: sorted, no times, no names of people."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        paths = []
        for folder, folders, files in os.walk(root):
            paths += [os.path.relpath(os.path.join(folder, name), root) for name in folders + files]
        for path in sorted(paths):
            full = os.path.join(root, path)
            meta = os.lstat(full)
            entry = tarfile.TarInfo(path)
            entry.mode = stat.S_IMODE(meta.st_mode)
            if stat.S_ISLNK(meta.st_mode):
                entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(full)
                tar.addfile(entry)
            elif stat.S_ISDIR(meta.st_mode):
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            else:
                entry.size = meta.st_size
                with open(full, "rb") as file:
                    tar.addfile(entry, file)
    return out.getvalue()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("out")
    parser.add_argument("name")
    parser.add_argument("--entrypoint", action="append", default=[])
    parser.add_argument("--user", default="0:0")
    args = parser.parse_args()

    blobs = {}

    def blob(kind, content):
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    def plain(value):
        return json.dumps(value, sort_keys=True).encode()

    machine = platform.machine()
    content = blob(LAYER, layer(args.root))
    config = blob(CONFIG, plain({
        "architecture": ARCHITECTURE.get(machine, machine),
        "os": "linux",
        "config": {"Entrypoint": args.entrypoint, "User": args.user, "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [content["digest"]]},
    }))
    manifest = blob(MANIFEST, plain({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [content]}))
    manifest["annotations"] = {"io.containerd.image.name": args.name}
    blobs["index.json"] = plain({"schemaVersion": 2, "manifests": [manifest]})
    blobs["oci-layout"] = plain({"imageLayoutVersion": "1.0.0"})
    with tarfile.open(args.out, "w") as tar:
        for path, data in sorted(blobs.items()):
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


main()
