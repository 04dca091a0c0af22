"""The interactive documentation at /docs. It works without a network: the page's assets come with this machine.

The bundled Swagger UI reads OpenAPI 3.0 and FastAPI writes 3.1; `as_openapi_30` holds the few differences.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from swagger_ui_bundle import swagger_ui_path

from shardlift.api.schemas import ErrorBody, NativeErrorBody

_ASSETS = "/docs/assets"
_REASONS = {
    400: "Invalid request: do not repeat it without a change",
    401: "Wrong or missing signature or token",
    403: "Not there, or not yours",
    404: "Not found",
    409: "Another operation is running on the cluster",
    412: "Refused by a pre-check; the message names rule, reason, evidence and remedy",
    413: "The body is larger than 1 MiB",
    429: "Too often, or too many at a time; `Retry-After` says when to come back",
    500: "A fault of the server; its log has the request id",
    502: "The cluster or a host did not do what it was asked",
}
# What every call may answer: the body is read before the signature over it is checked, and keys have a rate.
_ALWAYS = (400, 401, 413, 429, 500)


def errors_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer these statuses with an error body."""
    return _errors(ErrorBody, statuses)


def native_errors_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The same of a route of the native API, whose errors say more."""
    return _errors(NativeErrorBody, statuses)


def _errors(model: type[BaseModel], statuses: Iterable[int]) -> dict[int | str, dict[str, Any]]:
    every = sorted({*statuses, *_ALWAYS})
    return {status: {"model": model, "description": _REASONS[status]} for status in every}


def body_of(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """The request body of a route that reads it itself: a signature covers the raw bytes, so they are read first."""
    schema = model.model_json_schema()
    schema = _inlined(schema, schema.pop("$defs", {}))
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    """The schema with its own definitions put where they are referred to: references only reach components there."""
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(definitions[node["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in node.items()}


def install_docs(app: FastAPI) -> None:
    """Adds /docs, its assets and /openapi.json."""

    async def page() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{_ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{_ASSETS}/favicon-32x32.png",
            # No outside validator: the page must neither need nor tell anybody else.
            swagger_ui_parameters={"validatorUrl": None, "defaultModelsExpandDepth": 0},
        )

    async def document() -> dict[str, Any]:
        return openapi_document(app)

    app.mount(_ASSETS, StaticFiles(directory=str(swagger_ui_path)), name="docs-assets")
    app.add_api_route("/docs", page, include_in_schema=False, response_class=HTMLResponse)
    app.add_api_route("/openapi.json", document, include_in_schema=False)


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """What /openapi.json answers; made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            openapi_version="3.0.3",
            tags=app.openapi_tags,
        )
        _drop_422(made)
        app.openapi_schema = as_openapi_30(made)
    return app.openapi_schema


def _drop_422(document: dict[str, Any]) -> None:
    """FastAPI documents a 422 of its own for each route; ours answer 400 with the CSS body instead."""
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document.get("components", {}).get("schemas", {}).pop(name, None)


def as_openapi_30(node: Any) -> Any:
    """JSON Schema of OpenAPI 3.1 in the words of 3.0: `nullable`, one `example`, `enum` for `const`, bounds."""
    if isinstance(node, list):
        return [as_openapi_30(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: as_openapi_30(value) for key, value in node.items()}
    choices = out.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        rest = [choice for choice in choices if choice != {"type": "null"}]
        del out["anyOf"]
        # A $ref may have no siblings in 3.0, hence allOf around a single one.
        out |= {"anyOf": rest} if len(rest) > 1 else {"allOf": rest} if "$ref" in rest[0] else rest[0]
        out["nullable"] = True
    for bound in ("minimum", "maximum"):
        exclusive = f"exclusive{bound.capitalize()}"
        if isinstance(out.get(exclusive), int | float) and not isinstance(out[exclusive], bool):
            out |= {bound: out[exclusive], exclusive: True}
    if "const" in out and not isinstance(out["const"], dict):
        out["enum"] = [out.pop("const")]
    if isinstance(out.get("examples"), list) and out["examples"]:
        out["example"] = out.pop("examples")[0]
    return out
