"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from shardlift.cli.main import app
from shardlift.model import SUB_STEPS, Strategy
from shardlift.settings import Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def rows(document: str, first: str) -> list[list[str]]:
    """Cells of the table rows whose first cell matches."""
    lines = (ROOT / document).read_text("utf-8").splitlines()
    # A bar behind a backslash is one in a cell.
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line.startswith("|")]
    return [row for row in cells if re.fullmatch(first, row[0])]


def commands() -> dict[str, list[str]]:
    """Every command, such as `task show`, with its options."""
    found: dict[str, list[str]] = {}

    def walk(command, path: str) -> None:
        if hasattr(command, "commands"):
            for name, below in command.commands.items():
                walk(below, f"{path} {name}".strip())
        else:
            found[path] = [option for parameter in command.params for option in parameter.opts if option[:2] == "--"]

    walk(typer.main.get_command(app), "")
    return found


def test_every_setting_is_documented_with_its_default_and_meaning():
    documented = {row[0].strip("`"): row for row in rows("docs/settings.md", "`SHARDLIFT_.*`")}
    assert documented.keys() == {f"SHARDLIFT_{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        _, default, meaning = documented[f"SHARDLIFT_{name.upper()}"]
        assert field.description is not None
        assert meaning.replace("`", "") == field.description.replace("`", "")
        if field.default_factory is None and field.default != "":
            assert default == f"`{field.default}`".replace(".0`", "`") or float(default.strip("`")) == field.default


def test_every_command_is_documented_with_its_options():
    documented = {}
    for row in rows("docs/commands.md", r"`shardlift .*`"):
        words = row[0].strip("`").removeprefix("shardlift ").split()
        name = " ".join(word for word in words if re.fullmatch("[a-z]+", word))
        documented[name] = set(re.findall(r"--[a-z-]+", row[0]))
    actual = {name: set(options) for name, options in commands().items()}
    assert documented.keys() == actual.keys()
    for name, options in actual.items():
        assert documented[name] == options - {"--json", "--help"}, name


@pytest.mark.parametrize("name", commands())
def test_every_command_has_json_and_a_line_of_help(name):
    assert "--json" in commands()[name]


def test_every_strategy_and_sub_step_is_documented():
    steps = [(int(row[0]), row[1]) for row in rows("docs/how-it-works.md", r"\d+")]
    assert steps == [(step.order, step.name) for step in SUB_STEPS]
    assert {row[0].strip("`") for row in rows("docs/strategies.md", "`.*`")} == set(Strategy)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text("utf-8")):
        assert (document.parent / target).exists(), target


def test_commands_shown_in_the_readme_exist():
    text = (ROOT / "README.md").read_text("utf-8")
    shown = re.findall(r"\bshardlift ((?:[a-z]+ ?){1,2})", "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)))
    known = commands()
    assert shown
    for words in shown:
        assert any(" ".join(words.split()[:count]) in known for count in (1, 2)), words
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets


def test_code_in_the_readme_is_python():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert blocks, "the README shows how an SDK is used"
    for block in blocks:
        compile(block, "README.md", "exec")


def test_no_file_is_longer_than_400_lines():
    """Functions are held below 70 lines by review; files by this."""
    long = {
        str(path.relative_to(ROOT)): count
        for path in (ROOT / "src").rglob("*.py")
        if (count := len(path.read_text("utf-8").splitlines())) > 400
    }
    assert long == {}
