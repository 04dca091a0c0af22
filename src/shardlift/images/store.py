"""The images on this host: archives by digest, engine folders by image id. Both appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from shardlift.errors import BusyError, DriverError
from shardlift.images.archive import digest, open_folder, unpack, unpacked_bytes
from shardlift.images.fetch import Progress, cached, fetch, link_or_copy
from shardlift.model import EngineKind, Image, Version

__all__ = ["MARKER", "ImageStore", "Progress", "UnpackedImage"]

MARKER = ".shardlift-image"
_LOCK_TIMEOUT_S = 3600
_SPARE_BYTES = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class UnpackedImage:
    """What an engine folder says of itself: enough to start it without asking the catalogue."""

    id: str
    engine: EngineKind
    version: Version
    java_min: int
    java_max: int
    display_name: str
    path: Path
    java_module: str | None = None

    @property
    def reference(self) -> str:
        return f"{self.engine}:{self.version}"


class ImageStore:
    """Archives and unpacked engines under `images_path`.

    Any number of processes may pull and unpack at once: they take turns on one lock per image, and whoever comes later
    finds the work done. Nothing half written is ever seen, because both steps end in a rename.
    """

    def __init__(self, images_path: Path, *, cache: Path | None = None) -> None:
        """`cache`: a folder that may hold archives already, by default the one that SHARDLIFT_IMAGE_CACHE names."""
        self._root = images_path
        named = os.environ.get("SHARDLIFT_IMAGE_CACHE")
        self._cache = cache or (Path(named) if named else None)

    def archive_path(self, image: Image) -> Path:
        return self._root / "archives" / image.sha256

    def engine_path(self, image_id: str) -> Path:
        return self._root / "engines" / image_id

    def is_pulled(self, image: Image) -> bool:
        """Whether the verified archive, or the engine unpacked from it, is here."""
        return self.archive_path(image).is_file() or self.is_unpacked(image)

    def is_unpacked(self, image: Image) -> bool:
        return _marker(self.engine_path(image.id)).get("sha256") == image.sha256

    def unpacked(self, image_id: str) -> UnpackedImage:
        """What is unpacked under this id. Raises DriverError when nothing is."""
        path = self.engine_path(image_id)
        marker = _marker(path)
        if not marker:
            raise DriverError(
                f"engine image {image_id} is not unpacked at {path}", remedy="pull it with `shardlift image pull`"
            )
        return UnpackedImage(
            id=str(marker["id"]),
            engine=EngineKind(str(marker["engine"])),
            version=Version.parse(str(marker["version"])),
            java_min=int(str(marker["java_min"])),
            java_max=int(str(marker["java_max"])),
            display_name=str(marker["display_name"]),
            path=path,
            java_module=str(module) if (module := marker.get("java_module")) else None,
        )

    def pull(self, image: Image, progress: Progress | None = None) -> Path:
        """The verified archive, downloaded unless it is here. Raises DriverError offline or on a wrong digest."""
        target = self.archive_path(image)
        with self._exclusive(image):
            if not target.is_file():
                self._pull(image, target, progress)
        if progress is not None:
            size = target.stat().st_size
            progress(size, size)
        return target

    def unpack(self, image: Image) -> Path:
        """The engine folder, unpacked from the pulled archive unless it is here.

        The archive's digest is verified once more: it may have been pulled long ago.
        """
        target = self.engine_path(image.id)
        if self.is_unpacked(image):
            return target
        with self._exclusive(image):
            if not self.is_unpacked(image):
                self._unpack(image, target)
        return target

    def _pull(self, image: Image, target: Path, progress: Progress | None) -> None:
        self._need_room(image.size_bytes, image)
        held = cached(image, self._cache) if self._cache is not None else None
        with self._scratch(image) as scratch:
            fresh = scratch / "archive"
            if held is not None and digest(held) == image.sha256:
                link_or_copy(held, fresh)
            else:
                (scratch / "repository").mkdir()
                fetch(image, fresh, scratch / "repository", progress)
            _verify(image, fresh)
            open_folder(target.parent)
            _sync(fresh)
            fresh.replace(target)

    def _unpack(self, image: Image, target: Path) -> None:
        archive = self.archive_path(image)
        if not archive.is_file():
            raise DriverError(
                f"{image.reference} has not been pulled", remedy=f"`shardlift image pull {image.reference}`"
            )
        _verify(image, archive)
        self._need_room(unpacked_bytes(archive), image)
        with self._scratch(image) as scratch:
            fresh = scratch / "engine"
            unpack(archive, fresh)
            marker = {
                "id": image.id,
                "sha256": image.sha256,
                "engine": str(image.engine),
                "version": str(image.version),
                "java_min": image.java_min,
                "java_max": image.java_max,
                "display_name": image.display_name,
                "java_module": image.java_module,
            }
            (fresh / MARKER).write_text(json.dumps(marker), "utf-8")
            (fresh / MARKER).chmod(0o644)
            open_folder(target.parent)
            if target.exists():  # without a marker: not ours, or of a version of Shardlift that wrote none
                shutil.rmtree(target)
            fresh.rename(target)

    @contextmanager
    def _exclusive(self, image: Image) -> Iterator[None]:
        """One process at a time per image; what the disk refuses is told as a DriverError."""
        try:
            open_folder(self._root / "cache")
            with FileLock(self._root / "cache" / f"{image.id}.lock", timeout=_LOCK_TIMEOUT_S):
                yield
        except Timeout:
            raise BusyError(f"another process has been pulling {image.reference} for {_LOCK_TIMEOUT_S} s") from None
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise DriverError(
                f"{image.reference} could not be stored under {self._root}: {error.strerror or error}",
                remedy="free disk space and pull again" if full else "look at the folder's owner and permissions",
            ) from error

    @contextmanager
    def _scratch(self, image: Image) -> Iterator[Path]:
        """A folder for this piece of work. We hold the image's lock, so one that is left over is of a dead process."""
        home = self._root / "cache"
        for left in home.glob(f"{image.id}.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        path = Path(tempfile.mkdtemp(prefix=f"{image.id}.", suffix=".tmp", dir=home))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _need_room(self, size_bytes: int, image: Image) -> None:
        free = shutil.disk_usage(self._root).free
        if free < size_bytes + _SPARE_BYTES:
            raise DriverError(
                f"{image.reference} needs {size_bytes} bytes under {self._root}, where {free} are free",
                remedy="free disk space, or move SHARDLIFT_HOME to a larger disk",
            )


def _marker(path: Path) -> dict[str, object]:
    try:
        data = json.loads((path / MARKER).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _verify(image: Image, file: Path) -> None:
    found = digest(file)
    if found == image.sha256:
        return
    file.unlink()
    raise DriverError(
        f"the archive of {image.reference} has the sha256 {found}, expected {image.sha256}; it was removed",
        field="sha256",
        value=found,
        remedy="pull again; if it stays so, what the source serves is not what the catalogue pinned",
    )


def _sync(file: Path) -> None:
    with file.open("rb") as source:
        os.fsync(source.fileno())
