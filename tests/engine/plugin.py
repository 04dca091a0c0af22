"""The smallest plugin that OpenSearch loads: a descriptor and a jar with one class, assembled without a compiler."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

_CLASS = "tiny/TinyPlugin"
_BASE = "org/opensearch/plugins/Plugin"
_JAVA_8 = 52


def install(engine: Path, *, name: str, version: str) -> Path:
    """Puts the plugin into the engine's folder, as `opensearch-plugin install` does. Returns the plugin's folder."""
    folder = engine / "plugins" / name
    folder.mkdir(parents=True)
    (folder / "plugin-descriptor.properties").write_text(
        f"description=does nothing\nversion={version}\nname={name}\nclassname={_CLASS.replace('/', '.')}\n"
        f"java.version=1.8\nopensearch.version={version}\n"
    )
    with zipfile.ZipFile(folder / f"{name}-{version}.jar", "w") as jar:
        jar.writestr(f"{_CLASS}.class", _class_file())
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def _class_file() -> bytes:
    """`public class TinyPlugin extends Plugin { public TinyPlugin() { super(); } }` (JVM specification, chapter 4)."""
    pool = [
        _utf8(_CLASS),  # 1
        struct.pack(">BH", 7, 1),  # 2: this class
        _utf8(_BASE),  # 3
        struct.pack(">BH", 7, 3),  # 4: its superclass
        _utf8("<init>"),  # 5
        _utf8("()V"),  # 6
        _utf8("Code"),  # 7
        struct.pack(">BHH", 12, 5, 6),  # 8: the constructor's name and type
        struct.pack(">BHH", 10, 4, 8),  # 9: the superclass's constructor
    ]
    code = bytes([0x2A, 0xB7, 0, 9, 0xB1])  # aload_0, invokespecial #9, return
    attribute = struct.pack(">HHI", 1, 1, len(code)) + code + struct.pack(">HH", 0, 0)
    public, super_flag = 0x0001, 0x0020
    constructor = struct.pack(">HHHH", public, 5, 6, 1) + struct.pack(">HI", 7, len(attribute)) + attribute
    return (
        struct.pack(">IHHH", 0xCAFEBABE, 0, _JAVA_8, len(pool) + 1)
        + b"".join(pool)
        + struct.pack(">HHHHH", public | super_flag, 2, 4, 0, 0)  # no interfaces, no fields
        + struct.pack(">H", 1)
        + constructor
        + struct.pack(">H", 0)
    )


def _utf8(text: str) -> bytes:
    return struct.pack(">BH", 1, len(text)) + text.encode()
