"""Put data, style and script into one page. Pure, apart from reading the package's own files.

Everything in a report is untrusted text: the template escapes it, the script only ever sets it as text, and the page's
Content-Security-Policy allows this very script and style and nothing else, the network included.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from qmp_client.page.pack import Json, pack
from qmp_client.page.plain import Row, rows
from qmp_client.page.shown import Shown
from qmp_client.report.policy import Policy

_SCRIPTS = ("model.js", "parts.js", "heat.js", "bits.js", "tables.js", "page.js")
"""In the order in which they use each other."""


def render(tds: Sequence[Shown], policy: Policy) -> str:
    """The page for these TDs; the lines that ``policy`` fails are marked. The same input gives the same page."""
    script = "(() => {\n" + "\n".join(_file(name) for name in _SCRIPTS) + "\n})();"
    style = _file("page.css")
    plain: list[Row] = rows(tds, policy)
    page = (
        Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        .from_string(_file("page.html.j2"))
        .render(
            policy_header=_content_security_policy(script, style),
            style=Markup(style),
            script=Markup(script),
            data=Markup(_embedded(pack(tds, policy))),
            rows=plain,
        )
    )
    # A file name that is no UTF-8 has lone surrogates, which no encoding can write.
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def _file(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _embedded(data: Json) -> str:
    """JSON in ASCII that can stand in a script element: no ``</script``, no ``<!--``, no U+2028."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _content_security_policy(script: str, style: str) -> str:
    return (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()
