"""Refuses tracked files that would not work, or weigh, elsewhere: registry host names, and files above 1 MiB.

A host name of a package registry ties the project to one network; the ordinary clients know where they fetch from.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SIZE_MAX_BYTES = 1024 * 1024

# In two parts each, so that this very file passes its own check.
REGISTRY_HOSTS = tuple(
    (left + right).encode()
    for left, right in (
        ("pypi", ".org"),
        ("pythonhosted", ".org"),
        ("repo1.", "maven"),
        ("repo.", "maven"),
        ("maven", ".org"),
        ("registry.", "npmjs"),
        ("npmjs", ".org"),
        ("crates", ".io"),
        ("golang", ".org"),
        ("gopkg", ".in"),
        ("deb.", "debian"),
    )
)


def tracked(root: Path) -> list[Path]:
    """Files that git tracks; outside a git checkout, those that a source archive would hold."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=False)
    if listing.returncode == 0:
        return [root / name for name in listing.stdout.decode().split("\0") if name]
    print("no usable git checkout here: looking at all files but hidden ones")
    return [p for p in root.rglob("*") if not any(part.startswith(".") for part in p.relative_to(root).parts)]


def problems(root: Path, files: list[Path]) -> list[str]:
    """One line per objection; empty when all is well."""
    found: list[str] = []
    for file in files:
        if not file.is_file():
            continue
        name = file.relative_to(root)
        content = file.read_bytes()
        if len(content) > SIZE_MAX_BYTES:
            found.append(f"{name}: {len(content)} bytes, above the limit of {SIZE_MAX_BYTES}")
        found += [f"{name}: names the package registry host {h.decode()}" for h in REGISTRY_HOSTS if h in content]
    return found


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    files = tracked(root)
    found = problems(root, files)
    for line in found:
        print(line)
    print(f"{len(files)} files looked at, {len(found)} objections")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
