"""The page at `/`: one file, and a policy that lets it load nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from fastapi.responses import HTMLResponse


@cache
def _page() -> tuple[str, str]:
    """The page and its content security policy, which names its script and its style by their hashes."""
    html = files("semanticspec.server").joinpath("page.html").read_text(encoding="utf-8")
    policy = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
    for tag in ("script", "style"):
        found = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert found is not None, f"the page has a {tag}"
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        policy += f"; {tag}-src 'sha256-{digest}'"
    return html, f"{policy}; frame-ancestors 'none'"


def page_response() -> HTMLResponse:
    html, policy = _page()
    return HTMLResponse(
        html, headers={"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
    )
