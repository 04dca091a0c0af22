"""`shardlift image ...`: engine releases, known and fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from shardlift.cli.output import AsJson, print_fields, print_json, print_table, stderr
from shardlift.cli.session import session_of
from shardlift.images import Catalogue, ImageStore
from shardlift.model import Image
from shardlift.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Engine images: releases that nodes can run.")

_MIB = 1024 * 1024


@app.command("list")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """All images, the most recommended first."""
    settings = session_of(context).settings()
    store = ImageStore(settings.images_path)
    images = Catalogue(settings.images_path).all()
    if as_json:
        print_json({"total": len(images), "images": [_document(image, store) for image in images]})
        return
    rows = [
        (
            image.reference,
            image.display_name,
            f"{image.java_min}-{image.java_max}",
            f"{image.size_bytes / _MIB:.0f} MiB",
            "yes" if store.is_pulled(image) else "no",
            image.id,
        )
        for image in images
    ]
    print_table(["IMAGE", "NAME", "JAVA", "SIZE", "PULLED", "ID"], rows, empty="the catalogue is empty")


@app.command("pull")
def pull(
    context: typer.Context,
    image: Annotated[str, typer.Argument(help="`opensearch:2.19.4`, a name or an id.")],
    as_json: AsJson = False,
) -> None:
    """Fetch an image's archive, unless it is here already; its digest is verified."""
    settings = session_of(context).settings()
    found = Catalogue(settings.images_path).find(image)
    pull_with_bar(settings, found)
    _show(settings, found, as_json=as_json)


@app.command("add")
def add(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="An engine archive (.zip, .tar.gz), or a .toml file describing one.")],
    description: Annotated[str | None, typer.Option(help="A line about it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add an image of your own to the catalogue."""
    settings = session_of(context).settings()
    added = Catalogue(settings.images_path).add(file, description=description)
    _show(settings, added, as_json=as_json)


def pull_with_bar(settings: Settings, image: Image, store: ImageStore | None = None) -> None:
    """Pulls the image; while bytes come in, stderr shows how many. Silent when it is here."""
    store = store or ImageStore(settings.images_path)
    if store.is_pulled(image):
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=stderr(), transient=False) as bar:
        line = bar.add_task(f"pulling {image.reference}", total=image.size_bytes)
        store.pull(image, lambda done, total: bar.update(line, completed=done, total=total or image.size_bytes))
        bar.update(line, description=f"unpacking {image.reference}")
        store.unpack(image)  # now, so that no upgrade has to wait for it


def _document(image: Image, store: ImageStore) -> dict[str, object]:
    from shardlift.api.documents import image_document  # noqa: PLC0415 - brings the web framework along, slowly

    return {**image_document(image), "pulled": store.is_pulled(image)}


def _show(settings: Settings, image: Image, *, as_json: bool) -> None:
    document = _document(image, ImageStore(settings.images_path))
    if as_json:
        print_json(document)
    else:
        print_fields(document)
