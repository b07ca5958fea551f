"""The page at `/`: one HTML file whose content security policy allows nothing from other sites."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from fastapi.responses import HTMLResponse


@cache
def _page_and_policy() -> tuple[str, str]:
    """Returns the page and its policy, which names the page's script and style by their hashes."""
    html = files("semanticspec.server").joinpath("page.html").read_text(encoding="utf-8")
    policy = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
    for tag in ("script", "style"):
        match = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert match is not None, f"page.html has no <{tag}>"
        digest = base64.b64encode(hashlib.sha256(match[1].encode()).digest()).decode()
        policy += f"; {tag}-src 'sha256-{digest}'"
    return html, f"{policy}; frame-ancestors 'none'"


def page_response() -> HTMLResponse:
    html, policy = _page_and_policy()
    headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
    return HTMLResponse(html, headers=headers)
