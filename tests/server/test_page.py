"""The page's security policy and examples; test_serve_page.py runs it in a browser."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from semanticspec.demo.grammar import read_problem
from tests.support.serving import live, scripted_pair


async def test_policy_allows_only_the_pages_own_script_and_style():
    async with live(scripted_pair()) as server:
        page = await server.http.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"(?:https?:)?//\w+[\w.]*\.\w+", page.text)
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.findall(r"<[^>]*\s(?:style|on\w+)=", page.text)  # the policy would not let them work


def test_examples_are_problems_of_the_bundled_pair():
    html = files("semanticspec.server").joinpath("page.html").read_text(encoding="utf-8")
    block = html.partition("BUNDLED_EXAMPLES = [")[2].partition("];")[0]
    examples = re.findall(r'"(.+)"', block)
    assert len(examples) == 3
    assert all(read_problem(example) is not None for example in examples)
