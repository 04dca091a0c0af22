"""What docs/clients.md shows is run as it stands, or stands in a program that is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from shardlift.testing import Emulator, emulator

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "clients.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def css() -> Iterator[Emulator]:
    structlog.reset_defaults()  # `capture_logs` of other tests leaves a choice that prints to standard output
    with emulator(speed=5000) as running:
        yield running
    structlog.reset_defaults()


@pytest.mark.parametrize(("at", "version"), [(0, "2.19.5"), (1, "3.")])
def test_the_python_examples_upgrade_a_cluster(
    css: Emulator, at: int, version: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("url", "project_id", "ak", "sk", "token", "cluster_id"):
        monkeypatch.setenv(f"CSS_{name.upper()}", getattr(css, name))
    exec(compile(blocks("python")[at], "docs/clients.md", "exec"), {})
    image, status, nodes = capsys.readouterr().out.split()
    assert image.startswith(version)
    assert (status, len(nodes.split(","))) == ("SUCCESS", 3)


@pytest.mark.parametrize(("language", "program"), [("go", "go/main.go"), ("js", "node/main.js")])
def test_the_other_examples_are_parts_of_programs_that_run(language: str, program: str) -> None:
    source = (ROOT / "tools" / "clients" / program).read_text("utf-8")
    (shown,) = blocks(language)
    assert shown in source


def test_every_variable_is_one_that_the_emulator_prints() -> None:
    printed = (ROOT / "docs" / "emulator.md").read_text("utf-8")
    shown = set(re.findall(r"CSS_[A-Z]+(?:_ID)?", TEXT))
    assert shown == {"CSS_URL", "CSS_PROJECT_ID", "CSS_CLUSTER_ID", "CSS_AK", "CSS_SK", "CSS_TOKEN"}
    assert all(name in printed for name in shown)
