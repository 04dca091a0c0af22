"""Engines and Javas that are shell scripts: real files and real processes, without an archive's weight."""

from __future__ import annotations

import io
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shardlift.driver.local import LocalDriver
from shardlift.images import ImageStore
from shardlift.images.archive import digest
from shardlift.model import EngineKind, Image, InstanceType, Node, Version
from shardlift.settings import Settings

JVM_OPTIONS = """# heap
-Xms1g
-Xmx1g
20-:--add-modules=jdk.incubator.vector
-XX:HeapDumpPath=data
-XX:ErrorFile=logs/hs_err_pid%p.log
9-:-Xlog:gc*:file=logs/gc.log:utctime
"""

RUNS = """#!/bin/sh
echo "arguments: $*"
echo "user: $(id -u)"
env | sort
exec sleep 300
"""
"""An engine that prints what it was given and then lives until it is ended."""

STUBBORN = "#!/bin/sh\ntrap '' TERM\necho ready\nwhile :; do sleep 300 & wait; done\n"
"""One that does not end on SIGTERM."""

PARENT = "#!/bin/sh\nsleep 300 &\necho child $!\nwait\n"
"""One that serves from a child, as Elasticsearch 8 does, but does not end it."""

BY_HAND = """
import fcntl, os, signal, subprocess, sys, time
lock = open(sys.argv[1], "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
child = subprocess.Popen(["sleep", "300"], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(300)
"""
"""For `python -c BY_HAND LOCK`: what a person starts. It holds the lock on its data, as engines do, and has a child."""

FAILS = "#!/bin/sh\necho 'Unrecognized VM option UseMagicGC'\nexit 1\n"


@contextmanager
def open_home() -> Iterator[Path]:
    """A home that other users can reach: nodes run as another user when the tests run as root."""
    home = Path(tempfile.mkdtemp(prefix="shardlift-test-"))
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def make_java(home: Path, version: str, *, modules: str = "java.base") -> Path:
    """A folder that looks like a Java of this version."""
    (home / "bin").mkdir(parents=True)
    java = home / "bin" / "java"
    java.write_text("#!/bin/sh\nexit 0\n")
    java.chmod(0o755)
    (home / "release").write_text(f'JAVA_VERSION="{version}"\nMODULES="{modules}"\n')
    return home


def make_archive(
    path: Path,
    version: str = "2.19.4",
    *,
    engine: EngineKind = EngineKind.OPENSEARCH,
    script: str = RUNS,
    extra: dict[str, str] | None = None,
) -> Path:
    """A zip laid out like an engine's."""
    top = f"{engine}-{version}"
    files = {
        f"bin/{engine}": script,
        "bin/notes.txt": "not a program",
        f"lib/{engine}-core-{version}.jar": "",
        "config/jvm.options": JVM_OPTIONS + f"-Dfor.version={version}\n",
        "config/log4j2.properties": f"status = error\nversion = {version}\n",
        f"config/{engine}.yml": "# all default\n",
        "plugins/.keep": "",
        **(extra or {}),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            info = zipfile.ZipInfo(f"{top}/{name}")
            info.external_attr = (0o100755 if text.startswith("#!") else 0o100600) << 16
            archive.writestr(info, text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())
    return path


def make_image(archive: Path, image_id: str, version: str, engine: EngineKind = EngineKind.OPENSEARCH) -> Image:
    return Image(
        id=image_id,
        display_name=f"{version}_1.0.0_1124",
        description="a fake",
        engine=engine,
        version=Version.parse(version),
        sha256=digest(archive),
        size_bytes=archive.stat().st_size,
        java_min=11,
        java_max=21,
        priority=1,
        path=str(archive),
    )


def make_node(name: str = "n1", *, roles: tuple[str, ...] = (), address: str = "127.44.0.1") -> Node:
    return Node(
        id=f"id-{name}",
        cluster_id="cluster-1",
        name=name,
        instance_type=InstanceType.ESS,
        roles=roles,
        zone="zone-a",
        address=address,
        http_port=9200,
        transport_port=9300,
        image_id="img-a",
    )


class FakeHost:
    """A home with two fake images, unpacked, and a driver on it."""

    def __init__(self, home: Path, *, script: str = RUNS, target_script: str = RUNS) -> None:
        self.home = home
        java = make_java(home / "java-17", "17.0.1")
        self.settings = Settings(home=home, java_homes=str(java))
        self.store = ImageStore(self.settings.images_path)
        first = make_archive(home / "a.zip", "2.19.4", script=script)
        second = make_archive(home / "b.zip", "3.4.0", script=target_script, extra={"config/new.conf": "only in 3\n"})
        self.source = make_image(first, "img-a", "2.19.4")
        self.target = make_image(second, "img-b", "3.4.0")
        for image in (self.source, self.target):
            self.store.pull(image)
            self.store.unpack(image)
        self.driver = LocalDriver(self.settings, self.store)
        self.node = make_node()
        self.root = home / "nodes" / "cluster-1" / "n1"

    async def create(self) -> None:
        await self.driver.create(self.node, self.source, seeds=(self.node,), heap_mib=256)

    def tree(self) -> dict[str, str]:
        """Every file of the node with its content, links with their target, without the log of when."""
        out: dict[str, str] = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if name == "host.log":
                continue
            if path.is_symlink():
                out[name] = f"-> {path.readlink()}"
            elif path.is_dir():
                out[name] = "folder"
            elif path.suffix == ".tar":
                out[name] = "archive"
            else:
                out[name] = path.read_text()
        return out
