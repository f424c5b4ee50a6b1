"""``/docs``: the admin API as one page, made of its own OpenAPI description.

One HTML document and one style sheet from this process; no script, nothing from another host, so that it reads the same
without the internet and its Content-Security-Policy can forbid everything else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response

PAGE, STYLE = "/docs", "/docs/style.css"
SAFE = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_METHODS = ("get", "post", "put", "patch", "delete")
Schema = Mapping[str, Any]

_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font-family: ui-monospace, monospace; font-size: .9em }
pre { overflow-x: auto; padding: .6rem .8rem; border: 1px solid #8884; border-radius: 6px }
details { border: 1px solid #8884; border-radius: 6px; margin: .4rem 0; padding: .3rem .8rem }
summary { cursor: pointer }
summary b { display: inline-block; min-width: 4.5rem; font-family: ui-monospace, monospace }
table { border-collapse: collapse; margin: .5rem 0 } td, th { text-align: left; padding: .15rem 1rem .15rem 0 }
td { vertical-align: top } nav a { margin-right: 1rem } h2 { margin-top: 2.5rem } .dim { opacity: .7 }
"""


def install(app: FastAPI) -> None:
    """Adds the page and its style sheet."""

    @app.get(PAGE, include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(render(app.openapi()), headers=SAFE)

    @app.get(STYLE, include_in_schema=False)
    async def style() -> Response:
        return Response(_STYLE, media_type="text/css", headers=SAFE)


def render(schema: Schema) -> str:
    """The page."""
    info = schema["info"]
    tags = [tag["name"] for tag in schema.get("tags", [])]
    links = "".join(f'<a href="#{escape(tag)}">{escape(tag)}</a>' for tag in [*tags, "schemas"])
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<title>{escape(info["title"])}</title><link rel="stylesheet" href="{STYLE}">',
            '<link rel="icon" href="data:,"></head><body>',
            f'<h1>{escape(info["title"])} <span class="dim">{escape(info["version"])}</span></h1>',
            _prose(info.get("description", "")),
            '<p>The same for programs: <a href="/openapi.json">/openapi.json</a></p>',
            f"<nav>{links}</nav>",
            *(_tag(schema, tag) for tag in schema.get("tags", [])),
            '<h2 id="schemas">schemas</h2>',
            *(_component(name, one) for name, one in sorted(schema["components"]["schemas"].items())),
            "</body></html>",
        )
    )


def _tag(schema: Schema, tag: Schema) -> str:
    found = "".join(
        _operation(method, path, operation)
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
        if method in _METHODS and tag["name"] in operation.get("tags", ())
    )
    return f'<h2 id="{escape(tag["name"])}">{escape(tag["name"])}</h2>{_prose(tag.get("description", ""))}{found}'


def _operation(method: str, path: str, operation: Schema) -> str:
    body = _body(operation)
    parts = [
        f'<details id="{escape(operation["operationId"])}"><summary><b>{method.upper()}</b> '
        f"<code>{escape(path)}</code> {escape(operation.get('summary', ''))}</summary>",
        _prose(operation.get("description", "")),
        _parameters(operation.get("parameters", ())),
        f"<p>Body: {_type(body)}</p>" if body else "",
        f"<p>Answers: {', '.join(_answers(operation))}</p>",
        f"<pre>{escape(_curl(method, path, body))}</pre></details>",
    ]
    return "".join(parts)


def _body(operation: Schema) -> Schema | None:
    content = operation.get("requestBody", {}).get("content", {})
    found: Schema | None = content.get("application/json", {}).get("schema")
    return found


def _answers(operation: Schema) -> Iterator[str]:
    for status, answer in operation["responses"].items():
        schema = answer.get("content", {}).get("application/json", {}).get("schema")
        yield f"<code>{escape(status)}</code> {_type(schema) if schema else escape(answer.get('description', ''))}"


def _curl(method: str, path: str, body: Schema | None) -> str:
    lines = ["curl" if method == "get" else f"curl -X {method.upper()}"]
    lines.append('-H "Authorization: Bearer $(cat STATE/admin.token)"')
    if body:
        lines.append("-H 'Content-Type: application/json' -d '{…}'")
    return " \\\n  ".join([*lines, f"http://127.0.0.1:4001{path}"])


def _parameters(parameters: Any) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(one['name'])}</code></td><td>{escape(one['in'])}"
        f"{', required' if one.get('required') else ''}</td><td>{_type(one.get('schema', {}))}</td>"
        f"<td>{_line(one.get('description', ''))}</td></tr>"
        for one in parameters
    )
    return f"<table>{rows}</table>" if rows else ""


def _component(name: str, schema: Schema) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code></td><td>{'required' if field in required else ''}</td>"
        f"<td>{_type(one)}</td><td>{_line(one.get('description', ''))}</td></tr>"
        for field, one in schema.get("properties", {}).items()
    )
    return (
        f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        f"{_prose(schema.get('description', ''))}<table>{rows}</table></details>"
    )


def _type(schema: Schema) -> str:
    """A schema in a few words; a reference is a link."""
    if "$ref" in schema:
        name = escape(str(schema["$ref"]).rpartition("/")[2])
        return f'<a href="#schema-{name}"><code>{name}</code></a>'
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[key]))
    if "enum" in schema or "const" in schema:
        return " | ".join(
            f"<code>{escape(json.dumps(one))}</code>" for one in schema.get("enum", [schema.get("const")])
        )
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    inner = schema.get("additionalProperties")
    return f"object of {_type(inner)}" if kind == "object" and isinstance(inner, dict) else escape(str(kind))


def _prose(text: str) -> str:
    return "".join(f"<p>{_line(part)}</p>" for part in text.strip().split("\n\n") if part)


def _line(text: str) -> str:
    """``code`` between backquotes, the rest as it stands."""
    pieces = escape(" ".join(text.split())).replace("``", "`").split("`")
    return "".join(f"<code>{piece}</code>" if odd % 2 else piece for odd, piece in enumerate(pieces))
