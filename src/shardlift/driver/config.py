"""A node's configuration folder through an upgrade: laid, backed up, rebuilt for another image. Always whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shardlift.driver.jvm import Jvm
from shardlift.driver.layout import NodePaths, path_part, read_json, write_json
from shardlift.driver.protocol import Backup, Restored
from shardlift.driver.render import in_zone, merge_lines, release_of, render_defaults, render_yml, yml_name
from shardlift.driver.translate import translate
from shardlift.driver.users import NodeUser
from shardlift.errors import DriverError
from shardlift.images import UnpackedImage
from shardlift.model import EngineKind, Node, PluginSeen

_MARKER = ".shardlift.json"
_ARCHIVE = "config.tar"
_FACTS = "backup.json"


@dataclass(frozen=True, slots=True)
class ConfigTarget:
    """For what a configuration is made: the image, its Java, the heap (MiB), and the user who shall own it."""

    image: UnpackedImage
    jvm: Jvm
    heap_mib: int
    user: NodeUser


def lay(paths: NodePaths, node: Node, seeds: Sequence[Node], target: ConfigTarget) -> None:
    """Makes the first configuration folder unless there is one."""
    if paths.config.exists():
        return
    fresh = _new_folder(paths, "laid")
    pristine = _pristine(paths, target)
    shutil.copytree(pristine, fresh)
    (fresh / yml_name(target.image.engine)).write_text(render_yml(target.image, node, seeds, paths), "utf-8")
    write_json(fresh / _MARKER, {"image": target.image.id})
    target.user.own(fresh)
    fresh.rename(paths.config)


def save(paths: NodePaths, key: str, plugins: tuple[PluginSeen, ...]) -> Backup:
    """Archives the configuration once per key. Later calls verify what was archived, and archive what changed since.

    Raises DriverError where the node's settings are no text that `rebuild` could translate.
    """
    folder = paths.backups / path_part(key, "key")
    if folder.is_dir():
        return _renewed(paths, key)
    files = _files(paths.config)
    _require_text(paths, files)
    paths.backups.mkdir(mode=0o700, exist_ok=True)
    fresh = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    _archive(paths, fresh / _ARCHIVE, files)
    write_json(
        fresh / _FACTS,
        {
            **_listed(files),
            "plugins": [[plugin.name, plugin.version] for plugin in plugins],
            "image": read_json(paths.config / _MARKER).get("image"),
        },
    )
    fresh.rename(folder)
    paths.log("backup", key=key)
    return _saved(folder)


def _renewed(paths: NodePaths, key: str) -> Backup:
    """The backup of this key, of the configuration as it now is: between the shutdown of a node and the rebuild of its
    configuration, whatever went wrong there, its owner may have edited it, and started the node with it.

    What tells that it is his still, and not rebuilt, is the mark in it. Plugins and image stay those of the first time:
    the node may have its new engine by now. The facts name the archive, so one rename takes the new one for the old.
    """
    folder = paths.backups / path_part(key, "key")
    kept = _saved(folder)
    if paths.config.exists() and read_json(paths.config / _MARKER).get("key") != key:
        files = _files(paths.config)
        # Without its settings it is no configuration that anybody could want instead.
        if _digest(files) != kept.digest and _settings_in(files):
            _require_text(paths, files)
            name = f"config.{_digest(files)[:12]}.tar"
            _archive(paths, folder / name, files)
            write_json(folder / _FACTS, {**read_json(folder / _FACTS), **_listed(files), "archive": name})
            paths.log("backup", key=key, again=True)
            kept = _saved(folder)
    for archive in folder.glob("*.tar"):
        if archive != _archive_of(folder):
            archive.unlink()
    return kept


def _archive(paths: NodePaths, place: Path, files: Mapping[str, bytes]) -> None:
    with place.open("wb") as sink:
        with tarfile.open(fileobj=sink, mode="w") as tar:
            for name in files:
                tar.add(paths.config / name, name, recursive=False)
        sink.flush()
        os.fsync(sink.fileno())


def _archive_of(folder: Path) -> Path:
    return folder / str(read_json(folder / _FACTS).get("archive", _ARCHIVE))


def _listed(files: Mapping[str, bytes]) -> dict[str, object]:
    return {"digest": _digest(files), "files": [name for name in files if name != _MARKER]}


def _settings_in(files: Mapping[str, bytes]) -> list[str]:
    return [yml_name(kind) for kind in EngineKind if yml_name(kind) in files]


def _require_text(paths: NodePaths, files: Mapping[str, bytes]) -> None:
    for name in _settings_in(files):
        try:
            files[name].decode("utf-8")
        except UnicodeDecodeError as error:
            line = files[name].count(b"\n", 0, error.start) + 1
            raise DriverError(
                f"{paths.config / name}, line {line}, is not UTF-8, so it cannot be carried over",
                remedy="save it as UTF-8, then retry",
            ) from None


def rebuild(paths: NodePaths, key: str, target: ConfigTarget, zone: str | None = None) -> Restored:
    """Builds the configuration for the target image from the backup of this key, and swaps it in.

    `zone`: written over what the configuration says, None leaves that as it is.

    Files that nobody changed since they were rendered from the old image become the new image's own. The rest is the
    user's and comes along. Can be called again after a crash at any point: the new folder only becomes `config` whole.
    """
    done = read_json(paths.config / _MARKER)
    if done.get("key") != key or done.get("image") != target.image.id:
        fresh = paths.root / f"config.{path_part(key, 'key')}.new"
        # Without a config the swap below was cut short, and what stands ready was complete.
        if paths.config.exists() or read_json(fresh / _MARKER).get("key") != key:
            _build(paths, key, target, fresh, zone)
        old = paths.root / f"config.{key}.old"
        if paths.config.exists():
            shutil.rmtree(old, ignore_errors=True)
            paths.config.rename(old)
        fresh.rename(paths.config)
        paths.log("restore", key=key, image=target.image.id)
        return _restored(paths, key, already=False)
    return _restored(paths, key, already=True)


def _restored(paths: NodePaths, key: str, *, already: bool) -> Restored:
    shutil.rmtree(paths.root / f"config.{key}.old", ignore_errors=True)
    facts = read_json(paths.config / _MARKER)
    return Restored(already, tuple(facts.get("translated", ())), tuple(facts.get("kept", ())))


def _build(paths: NodePaths, key: str, target: ConfigTarget, fresh: Path, zone: str | None) -> None:
    saved = paths.backups / key
    if not saved.is_dir():
        raise DriverError(
            f"{paths.root.name} has no configuration backup {key}",
            remedy="retry the task from its configuration backup on",
        )
    _renewed(paths, key)
    user = _archived(_archive_of(saved))
    source = str(read_json(saved / _FACTS).get("image"))
    pristine = _files(paths.rendered / source) if (paths.rendered / source).is_dir() else {}
    folder = _new_folder(paths, key)
    shutil.copytree(_pristine(paths, target), folder)
    translated, kept = _carry(user, pristine, target, folder)
    if zone is not None:
        yml = folder / yml_name(target.image.engine)
        _put(yml, in_zone(yml.read_text("utf-8"), zone).encode())
    write_json(
        folder / _MARKER, {"image": target.image.id, "key": key, "translated": list(translated), "kept": list(kept)}
    )
    target.user.own(folder)
    shutil.rmtree(fresh, ignore_errors=True)
    folder.rename(fresh)


def _carry(
    user: Mapping[str, bytes], pristine: Mapping[str, bytes], target: ConfigTarget, folder: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Puts the user's files into the folder of defaults. Returns the translations and the names kept."""
    translated: list[str] = []
    kept: list[str] = []
    engine = target.image.engine
    for name, content in user.items():
        place = folder / name
        if name == _MARKER:
            continue
        if name in {yml_name(kind) for kind in EngineKind}:
            text, notes = translate(content.decode("utf-8"), release_of(target.image))
            _put(folder / yml_name(engine), text.encode())
            translated.extend(notes)
            if name != yml_name(engine):
                translated.append(f"{name} is now {yml_name(engine)}")
        elif name.endswith(".keystore") and name != f"{engine}.keystore":
            translated.append(
                f"{name} cannot be read by {release_of(target.image)}, which makes its own: secure settings, if there"
                f" were any, must be added again with {engine}-keystore"
            )
        elif pristine.get(name) != content:
            merged = None
            if name in pristine and place.exists():
                texts = (part.decode("utf-8", "replace") for part in (content, pristine[name], place.read_bytes()))
                merged = merge_lines(name, *texts)
            _put(place, content if merged is None else merged.encode())
            kept.append(name)
    return tuple(translated), tuple(kept)


def _put(place: Path, content: bytes) -> None:
    place.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    place.write_bytes(content)
    place.chmod(0o640)


def _pristine(paths: NodePaths, target: ConfigTarget) -> Path:
    """The image's defaults rendered for this node. Kept for as long as the node lives, to tell the user's changes."""
    folder = paths.rendered / target.image.id
    if not folder.is_dir():
        paths.rendered.mkdir(mode=0o700, exist_ok=True)
        fresh = _new_folder(paths, f"rendered.{target.image.id}")
        render_defaults(target.image, paths, target.jvm, target.heap_mib, fresh)
        fresh.rename(folder)
    return folder


def _new_folder(paths: NodePaths, word: str) -> Path:
    """A name for a folder in the making; what a crash left under it is removed."""
    folder = paths.root / f"config.{word}.tmp"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    """Contents by relative name, sorted."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def _archived(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        members = [member for member in tar if member.isfile()]
        return {member.name: _content(tar, member) for member in members}


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(member)
    assert content is not None
    return content.read()


def _digest(files: Mapping[str, bytes]) -> str:
    """sha256 over names and contents, each led by its length so that no two sets of files run together alike."""
    total = hashlib.sha256()
    for name, content in files.items():
        for part in (name.encode(), content):
            total.update(len(part).to_bytes(8))
            total.update(part)
    return total.hexdigest()


def _saved(folder: Path) -> Backup:
    facts = read_json(folder / _FACTS)
    try:
        found = _digest(_archived(_archive_of(folder)))
    except (OSError, tarfile.TarError) as error:
        found = f"unreadable: {error}"
    if found != facts.get("digest"):
        raise DriverError(
            f"the configuration backup {folder} is damaged: digest {found}, expected {facts.get('digest')}",
            remedy="abort the task; the node's own config folder is untouched",
        )
    plugins = tuple(PluginSeen(str(name), str(version)) for name, version in facts["plugins"])
    return Backup(str(facts["digest"]), tuple(facts["files"]), plugins)
