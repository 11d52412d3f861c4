"""The page at `/docs`: our own OpenAPI document as plain HTML, without a script and without a foreign host."""

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from typing import Any

import orjson

from service.web.problems import CODES

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1c2430}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin:2.2rem 0 .4rem}
code,pre{font:13px/1.45 ui-monospace,monospace;background:#f2f4f7;border-radius:4px}
code{padding:.1rem .3rem}pre{padding:.7rem;overflow:auto}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;
border-bottom:1px solid #e3e7ec}th{font-weight:600}b.m{display:inline-block;min-width:3.4rem}
details{margin:.4rem 0}summary{cursor:pointer}
"""


def security_policy() -> str:
    """This function will give the page's policy: nothing but its own style, named by its hash."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    )


def page(document: Mapping[str, Any]) -> bytes:
    """This function will render an OpenAPI document."""
    info = document["info"]
    calls = [
        _call(method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    codes = [
        f'<tr id="problem-{code}"><td><code>{code}</code></td><td>{status}</td><td>{escape(title)}</td></tr>'
        for code, (status, title) in CODES.items()
    ]
    shapes = [
        f'<details id="{escape(name)}"><summary>{escape(name)}</summary>{_json(schema)}</details>'
        for name, schema in document["components"]["schemas"].items()
    ]
    return "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{_prose(info['description'])}</p>",
            '<p>The same as a document: <a href="/openapi.json">/openapi.json</a></p>',
            *calls,
            "<h2>Problems</h2><table><tr><th>code</th><th>status</th><th></th></tr>",
            *codes,
            "</table><h2>Shapes</h2>",
            *shapes,
            "</body></html>",
        )
    ).encode()


def _call(method: str, path: str, operation: Mapping[str, Any]) -> str:
    scopes = " or ".join(
        f"<code>{escape(scope)}</code>" for item in operation["security"] for scope in item["apiKey"]
    )
    rows = [
        f"<tr><td><code>{escape(item['name'])}</code> ({item['in']})</td><td>{_prose(item.get('description', ''))}"
        f"</td><td><code>{escape(_text(item['schema']))}</code></td></tr>"
        for item in operation["parameters"]
    ]
    answers = [
        f"<tr><td>{status}</td><td>{_prose(answer['description'])}</td><td>{_contents(answer)}</td></tr>"
        for status, answer in operation["responses"].items()
    ]
    body = f"<p>Body: {_contents(operation['requestBody'])}</p>" if "requestBody" in operation else ""
    table = f"<table>{''.join(rows)}</table>" if rows else ""
    return (
        f'<h2 id="{escape(operation["operationId"])}"><b class="m">{method.upper()}</b> <code>{escape(path)}</code></h2>'
        f"<p>{_prose(operation['summary'])} {f'Scope {scopes}.' if scopes else 'Open without a key.'}</p>"
        f"{table}{body}<details><summary>Answers</summary><table>{''.join(answers)}</table></details>"
    )


def _contents(holder: Mapping[str, Any]) -> str:
    return ", ".join(
        f"<code>{escape(media)}</code>{_link(content['schema'])}"
        for media, content in holder.get("content", {}).items()
    )


def _link(schema: Mapping[str, Any]) -> str:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return f' <a href="#{escape(name)}">{escape(name)}</a>' if name else ""


def _prose(text: str) -> str:
    """Text with what stands between backticks set as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _json(value: Any) -> str:
    return f"<pre>{escape(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())}</pre>"
