"""The LaTeX of our own tables as HTML.

It knows what `geomem.paper` writes and no more; a command that it does not know is left out, what
stands in its braces stays. Everything else is escaped.
"""

import re

from markupsafe import Markup, escape

TOKEN = re.compile(r"\\[A-Za-z]+\*? ?|\\\\(?:\*?\[[^\]]*\])?|\\.|``|''|--|[{}$^_~]|.", re.DOTALL)
TAGS = {
    "textbf": "strong",
    "textit": "em",
    "emph": "em",
    "underline": "u",
    "texttt": "code",
    "scriptsize": "small",
}
SIGNS = {
    "\\,": "\u2009",
    "\\textbackslash": "\\",
    "\\textasciitilde": "~",
    "\\textasciicircum": "^",
    "\\dagger": "\u2020",
    "\\uparrow": "\u2191",
    "\\downarrow": "\u2193",
    "\\delta": "\u03b4",
    "\\pm": "\u00b1",
    "\\times": "\u00d7",
    "\\leq": "\u2264",
    "\\geq": "\u2265",
    "``": "\u201c",
    "''": "\u201d",
    "--": "\u2013",
    "~": "\u00a0",
}


def html_of(latex: str) -> Markup:
    """Return a piece of a table's LaTeX as HTML."""
    tokens = TOKEN.findall(latex)
    html, _ = _group(tokens, 0)
    return html


def text_of(latex: str) -> str:
    """Return a piece of a table's LaTeX as plain text."""
    return str(html_of(latex).striptags())


def _group(tokens: list[str], at: int, *, math: bool = False) -> tuple[Markup, int]:
    """Return what stands up to the closing brace, or to the end, and the place behind it."""
    parts, closing = [Markup()], Markup()
    while at < len(tokens):
        token = tokens[at]
        name = token.strip().removeprefix("\\")
        at += 1
        if token == "}":
            break
        if token == "$":
            math = not math
        elif token == "{":
            inner, at = _group(tokens, at, math=math)
            parts.append(inner)
        elif token.startswith("\\") and name in TAGS:
            tag = TAGS[name]
            if at < len(tokens) and tokens[at] == "{":
                inner, at = _group(tokens, at + 1, math=math)
                parts.append(Markup(f"<{tag}>{inner}</{tag}>"))
            else:  # it holds for the rest of its group
                parts.append(Markup(f"<{tag}>"))
                closing = Markup(f"</{tag}>") + closing
        elif math and token in "^_":
            inner, at = _argument(tokens, at)
            tag = "sup" if token == "^" else "sub"
            # a raised dagger is raised by itself
            parts.append(inner if inner == "\u2020" else Markup(f"<{tag}>{inner}</{tag}>"))
        elif token.startswith("\\\\"):
            # a heading in two lines may be broken behind a hyphen
            parts.append(Markup("" if parts[-1].endswith("-") else " "))
        else:
            parts.append(_sign(token, math=math))
    return Markup().join(parts) + closing, at


def _argument(tokens: list[str], at: int) -> tuple[Markup, int]:
    if at < len(tokens) and tokens[at] == "{":
        return _group(tokens, at + 1, math=True)
    return Markup().join(_sign(token, math=True) for token in tokens[at : at + 1]), at + 1


def _sign(token: str, *, math: bool) -> Markup:
    if math and token == "-":
        return Markup("\u2212")
    known = SIGNS.get(token.strip() or token)
    if known is not None:
        return escape(known)
    if re.fullmatch(r"\\[A-Za-z]+\*? ?", token):
        return Markup()
    return escape(token.removeprefix("\\"))
