"""Bringing an archive's bytes into a new file, from a Maven repository, a URL or a path. Verifying is the store's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from jgo.maven import MavenContext, PythonResolver

from shardlift.errors import DriverError
from shardlift.model import Image

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all (0 when unknown)."""

_READ_TIMEOUT_S = 30


def fetch(image: Image, target: Path, scratch: Path, progress: Progress | None) -> None:
    """Writes the image's archive to `target`; `scratch` is an empty folder for what the download needs meanwhile."""
    if image.coordinates is not None:
        _from_repository(image, image.coordinates, target, scratch, progress)
    elif image.url is not None:
        _from_url(image, image.url, target, progress)
    else:
        assert image.path is not None
        link_or_copy(Path(image.path), target)


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where both lie on one file system, so that the disk is not used twice; else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def cached(image: Image, cache: Path) -> Path | None:
    """Where a prepared folder holds the archive: by digest, by file name, or in Maven's layout. None when nowhere."""
    names = [image.sha256, f"{image.sha256}.zip", f"{image.sha256}.tar.gz"]
    if image.coordinates is not None:
        group, artifact, version, packaging = image.coordinates.split(":")
        file = f"{artifact}-{version}.{packaging}"
        names += [f"{group.replace('.', '/')}/{artifact}/{version}/{file}", file]
    return next((cache / name for name in names if (cache / name).is_file()), None)


def _from_repository(image: Image, coordinates: str, target: Path, scratch: Path, progress: Progress | None) -> None:
    group, artifact, version, packaging = coordinates.split(":")

    @contextmanager
    def report(_name: str, total: int) -> Iterator[Callable[[int], None]]:
        done = 0

        def more(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        yield more

    context = MavenContext(
        resolver=PythonResolver(progress_callback=report), repo_cache=scratch, timeout=_READ_TIMEOUT_S
    )
    try:
        found = context.project(group, artifact).at_version(version).artifact(packaging=packaging).resolve()
    except OSError as error:  # requests' errors are OSErrors; so are those of our own disk, which the caller tells
        if error.errno is not None:
            raise
        raise _unreachable(image, type(error).__name__) from error
    except RuntimeError as error:
        raise _unreachable(image, "the repository does not have it") from error
    found.replace(target)


def _from_url(image: Image, url: str, target: Path, progress: Progress | None) -> None:
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=_READ_TIMEOUT_S) as answer:
            answer.raise_for_status()
            total = int(answer.headers.get("content-length", 0))
            with target.open("wb") as sink:
                for block in answer.iter_bytes():
                    sink.write(block)
                    if progress is not None:
                        progress(answer.num_bytes_downloaded, total)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(image, str(error) or type(error).__name__) from error


def _unreachable(image: Image, cause: str) -> DriverError:
    return DriverError(
        f"{image.reference} could not be downloaded: {cause}",
        remedy="look at the network and proxy settings and pull again; or, without a network, set SHARDLIFT_IMAGE_CACHE"
        " to a folder that holds the archive, or `shardlift image add FILE`",
    )
