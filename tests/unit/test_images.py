"""The catalogue, and the way of an archive from its source to an engine folder."""

from __future__ import annotations

import hashlib
import http.server
import io
import re
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from shardlift.errors import DriverError, NotFoundError, ShardliftError, UsageError
from shardlift.images import Catalogue, ImageStore
from shardlift.images.catalogue import java_range
from shardlift.model import EngineKind, Image, Version
from tests.driver_fakes import RUNS, make_archive, make_image


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make_archive(tmp_path / "opensearch-2.19.4.zip", "2.19.4")


class Served:
    """A folder over HTTP on loopback that counts what is asked for."""

    def __init__(self, folder: Path) -> None:
        served = self
        self.asked: list[str] = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                served.asked.append(self.path)
                super().do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), lambda *args: Handler(*args, directory=str(folder))
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path)
    yield server
    server.close()


def at_url(image: Image, url: str) -> Image:
    return replace(image, path=None, url=url)


# ---- catalogue -------------------------------------------------------------------------------------------------------


def test_the_shipped_catalogue_is_whole(tmp_path: Path) -> None:
    images = Catalogue(tmp_path).all()
    assert len(images) == 12
    for values in ([i.id for i in images], [i.reference for i in images], [i.sha256 for i in images]):
        assert len(set(values)) == len(images)
    assert [i.priority for i in images] == sorted((i.priority for i in images), reverse=True)
    for image in images:
        assert re.fullmatch(r"\d+\.\d+\.\d+_\d+\.\d+\.\d+_\d{4}", image.display_name)
        assert image.coordinates is not None
        assert image.coordinates.endswith(f":{image.engine}:{image.version}:zip")
        assert (image.java_min, image.java_max) == java_range(image.engine, image.version)


@pytest.mark.parametrize("field", ["id", "display_name", "reference"])
def test_find_by_any_of_its_names(tmp_path: Path, field: str) -> None:
    catalogue = Catalogue(tmp_path)
    for image in catalogue.all():
        assert catalogue.find(getattr(image, field)) == image


def test_an_unknown_image_is_told_with_near_ones(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        Catalogue(tmp_path).find("opensearch:2.19.40")
    assert "opensearch:2.19.4" in str(caught.value.remedy)
    assert "shardlift image list" in str(caught.value.remedy)


def test_an_added_archive_is_read_and_kept(tmp_path: Path, archive: Path) -> None:
    added = Catalogue(tmp_path / "images").add(archive)
    assert (added.engine, added.version) == (EngineKind.OPENSEARCH, Version(2, 19, 4))
    assert added.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert (added.java_min, added.java_max) == (11, 21)
    again = Catalogue(tmp_path / "images")
    assert again.find(added.id) == added
    assert again.find("opensearch:2.19.4") == added  # what somebody added himself comes first
    assert again.add(archive) == added
    assert len(again.all()) == 13


def test_an_image_described_by_a_file(tmp_path: Path, archive: Path) -> None:
    description = tmp_path / "mine.toml"
    description.write_text('path = "opensearch-2.19.4.zip"\ndescription = "ours \\u007f \\"x\\""\npriority = 7\n')
    catalogue = Catalogue(tmp_path / "images")
    added = catalogue.add(description)
    assert (added.priority, added.path, added.description) == (7, str(archive), 'ours \x7f "x"')
    assert catalogue.find(added.id) == added
    description.write_text(
        f'url = "https://example.test/x.zip"\nengine = "opensearch"\nversion = "9.9.9"\nsha256 = "{"0" * 64}"\n'
    )
    assert catalogue.add(description).url == "https://example.test/x.zip"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("nonsense", "file"),
        ('path = "missing.zip"', "path"),
        (f'path = "opensearch-2.19.4.zip"\nsha256 = "{"0" * 64}"', "sha256"),
        ('url = "https://x.test/a"\nengine = "opensearch"\nversion = "1.0.0"', "sha256"),
        (f'url = "ftp://x.test/a"\nengine = "opensearch"\nversion = "1.0.0"\nsha256 = "{"0" * 64}"', "url"),
        (f'url = "https://x.test/a"\nengine = "solr"\nversion = "1.0.0"\nsha256 = "{"0" * 64}"', "engine, version"),
        (f'engine = "opensearch"\nversion = "1.0.0"\nsha256 = "{"0" * 64}"', "path"),
        (f'coordinates = "x"\nengine = "opensearch"\nversion = "1.0.0"\nsha256 = "{"0" * 64}"', "coordinates"),
    ],
)
def test_a_bad_description_names_its_field(tmp_path: Path, archive: Path, text: str, field: str) -> None:
    assert archive.exists()
    description = tmp_path / "bad.toml"
    description.write_text(text)
    with pytest.raises(UsageError) as caught:
        Catalogue(tmp_path / "images").add(description)
    assert caught.value.field == field
    assert len(Catalogue(tmp_path / "images").all()) == 12


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"just text"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.zip"
    file.write_bytes(content)
    with pytest.raises(ShardliftError) as caught:
        Catalogue(tmp_path / "images").add(file)
    assert str(file) in caught.value.message
    with pytest.raises(UsageError):
        Catalogue(tmp_path / "images").add(tmp_path / "missing.zip")


# ---- pulling ---------------------------------------------------------------------------------------------------------


def test_a_pull_is_verified_reported_and_done_once(tmp_path: Path, archive: Path, served: Served) -> None:
    image = at_url(make_image(archive, "i", "2.19.4"), f"{served.url}/{archive.name}")
    store = ImageStore(tmp_path / "images")
    assert not store.is_pulled(image)
    seen: list[tuple[int, int]] = []
    path = store.pull(image, lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == archive.read_bytes()
    assert store.is_pulled(image)
    assert seen[-1] == (image.size_bytes, image.size_bytes)
    store.pull(image)
    assert len(served.asked) == 1


def test_two_pulls_at_once_download_once(tmp_path: Path, archive: Path, served: Served) -> None:
    image = at_url(make_image(archive, "i", "2.19.4"), f"{served.url}/{archive.name}")
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: ImageStore(tmp_path / "images").pull(image), range(4)))
        engines = set(pool.map(lambda _: ImageStore(tmp_path / "images").unpack(image), range(4)))
    assert len(set(paths)) == len(engines) == 1
    assert len(served.asked) == 1


def test_a_wrong_digest_is_named_and_removed(tmp_path: Path, archive: Path, served: Served) -> None:
    image = replace(at_url(make_image(archive, "i", "2.19.4"), f"{served.url}/{archive.name}"), sha256="0" * 64)
    store = ImageStore(tmp_path / "images")
    with pytest.raises(DriverError) as caught:
        store.pull(image)
    assert "0" * 64 in caught.value.message
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in caught.value.message
    assert not store.is_pulled(image)
    assert [path for path in (tmp_path / "images").rglob("*") if path.is_file() and path.suffix != ".lock"] == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.zip", "{served}/missing.zip"])
def test_an_unreachable_source_is_told_with_a_way_out(tmp_path: Path, archive: Path, served: Served, url: str) -> None:
    image = at_url(make_image(archive, "i", "2.19.4"), url.format(served=served.url))
    with pytest.raises(DriverError, match="could not be downloaded") as caught:
        ImageStore(tmp_path / "images").pull(image)
    assert "SHARDLIFT_IMAGE_CACHE" in str(caught.value.remedy)


def test_a_prepared_folder_spares_the_download(tmp_path: Path, archive: Path) -> None:
    image = at_url(make_image(archive, "i", "2.19.4"), "http://127.0.0.1:9/x.zip")
    cache = tmp_path / "cache"
    cache.mkdir()
    archive.rename(cache / image.sha256)
    store = ImageStore(tmp_path / "images", cache=cache)
    assert hashlib.sha256(store.pull(image).read_bytes()).hexdigest() == image.sha256
    maven = replace(image, url=None, coordinates="g.h:opensearch:2.19.4:zip", id="j")
    place = cache / "g" / "h" / "opensearch" / "2.19.4"
    place.mkdir(parents=True)
    (cache / image.sha256).rename(place / "opensearch-2.19.4.zip")
    assert ImageStore(tmp_path / "other", cache=cache).pull(maven).is_file()


def test_a_damaged_file_in_the_prepared_folder_is_not_used(tmp_path: Path, archive: Path, served: Served) -> None:
    image = at_url(make_image(archive, "i", "2.19.4"), f"{served.url}/{archive.name}")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / image.sha256).write_bytes(b"damaged")
    assert ImageStore(tmp_path / "images", cache=tmp_path / "cache").pull(image).is_file()
    assert len(served.asked) == 1


def test_too_small_a_disk_is_told_before_the_download(tmp_path: Path, archive: Path) -> None:
    image = replace(make_image(archive, "i", "2.19.4"), size_bytes=2**60)
    with pytest.raises(DriverError, match="are free"):
        ImageStore(tmp_path / "images").pull(image)


# ---- unpacking -------------------------------------------------------------------------------------------------------


def test_an_engine_folder_is_complete_readable_and_marked(tmp_path: Path, archive: Path) -> None:
    image = make_image(archive, "i", "2.19.4")
    store = ImageStore(tmp_path / "images")
    left = tmp_path / "images" / "cache" / "i.crashed.tmp"
    (left / "engine").mkdir(parents=True)
    with pytest.raises(DriverError, match="has not been pulled"):
        store.unpack(image)
    store.pull(image)
    assert not store.is_unpacked(image)
    engine = store.unpack(image)
    assert (engine / "bin" / "opensearch").read_text() == RUNS
    assert stat.S_IMODE((engine / "bin" / "opensearch").stat().st_mode) == 0o755
    assert stat.S_IMODE((engine / "bin" / "notes.txt").stat().st_mode) == 0o644
    assert store.unpacked("i").version == Version(2, 19, 4)
    assert store.is_unpacked(image)
    assert not left.exists()
    made = engine.stat().st_ino
    assert store.unpack(image).stat().st_ino == made
    with pytest.raises(DriverError, match="not unpacked"):
        store.unpacked("other")


def hostile_zip(path: Path, name: str) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("e/lib/opensearch-core-2.19.4.jar", "")
        out.writestr(name, "bad")
    return path


def hostile_tar(path: Path, member: tarfile.TarInfo, then: str | None = None) -> Path:
    with tarfile.open(path, "w:gz") as out:
        out.addfile(tarfile.TarInfo("e/lib/opensearch-core-2.19.4.jar"), io.BytesIO())
        out.addfile(member)
        if then is not None:
            out.addfile(tarfile.TarInfo(then), io.BytesIO())
    return path


def linked(kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo("e/link")
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("case", ["dots", "absolute", "link", "absolute link", "through a link", "hard link", "device"])
def test_an_archive_cannot_write_outside(tmp_path: Path, case: str) -> None:
    file = tmp_path / "a"
    {
        "dots": lambda: hostile_zip(file, "e/../../escaped"),
        "absolute": lambda: hostile_zip(file, f"{tmp_path}/escaped"),
        "link": lambda: hostile_tar(file, linked(tarfile.SYMTYPE, "../../../escaped")),
        "absolute link": lambda: hostile_tar(file, linked(tarfile.SYMTYPE, str(tmp_path / "escaped"))),
        "through a link": lambda: hostile_tar(file, linked(tarfile.SYMTYPE, "lib"), "e/link/x"),
        "hard link": lambda: hostile_tar(file, linked(tarfile.LNKTYPE, "/etc/passwd")),
        "device": lambda: hostile_tar(file, linked(tarfile.CHRTYPE, "")),
    }[case]()
    image = make_image(file, "i", "2.19.4")
    store = ImageStore(tmp_path / "images")
    store.pull(image)
    with pytest.raises(DriverError, match="not a usable engine archive"):
        store.unpack(image)
    assert not store.is_unpacked(image)
    assert not (tmp_path / "escaped").exists()
    assert list((tmp_path / "images").glob("cache/*.tmp")) == []


def test_a_tarball_with_inner_links_unpacks(tmp_path: Path) -> None:
    file = hostile_tar(tmp_path / "a.tar.gz", linked(tarfile.SYMTYPE, "lib/opensearch-core-2.19.4.jar"))
    image = make_image(file, "i", "2.19.4")
    store = ImageStore(tmp_path / "images")
    store.pull(image)
    assert (store.unpack(image) / "link").resolve().name == "opensearch-core-2.19.4.jar"
    assert Catalogue(tmp_path / "images").add(file).version == Version(2, 19, 4)
