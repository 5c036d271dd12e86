"""Wiki markup -> plain text, in time linear in the markup whatever it holds.

Rules of https://www.mediawiki.org/wiki/Help:Formatting and Help:Links. What a reader sees as running text stays: link
texts, headings that have text under them, list items. Templates, tables, references, captions, categories, comments,
mathematics and other elements that are not prose go.
"""

import html
import re
from collections.abc import Iterable, Sequence

# Elements that go with their content.
_DROPPED_ELEMENTS = (
    "ref|references|math|chem|gallery|timeline|syntaxhighlight|source|score|imagemap|hiero|table|style|script|"
    "mapframe|maplink|graph|templatestyles|inputbox|poll|charinsert|section|indicator|includeonly"
)
_ELEMENT = re.compile(rf"<(/?)({_DROPPED_ELEMENTS})\b[^<>]*>", re.IGNORECASE)
_NOWIKI = re.compile(r"<(/?)nowiki\s*(/?)>", re.IGNORECASE)
# Every two braces of a run open or close one template. `|}}` ends a template whose last parameter is empty. That
# tables begin and end at the start of a line is checked apart: as a part of the pattern it takes four times as long.
_BRACES = re.compile(r"\{(?:\{+|\|)|\}\}+|\|\}(?!\})")
_BEFORE_TABLE = {"{|": " \t:*#;", "|}": " \t"}
_BRACKETS = re.compile(r"\[\[|\]\]")
_EXTERNAL_LINK = re.compile(r"\[((?:https?:|ftp:|mailto:|news:|irc:|//)[^\[\]\n]*)\]", re.IGNORECASE)
_BREAK = re.compile(r"<(?:br|hr|p|/p|li|/li|div|/div|blockquote|/blockquote)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_QUOTES = re.compile(r"''+")
_SWITCH = re.compile(r"__[A-Z]{3,}__")
_LIST_MARKER = re.compile(r"^[*#:;]+ ?")
_LINE_STARTS = ("=", "*", "#", ":", ";", "|", "!", " ", "\t")
_EMPTY_PARENTHESES = re.compile(r"[(\[][\s,;:/–—-]*[)\]]")
_JUNK_AFTER_PARENTHESIS = re.compile(r"\([\s,;:]+")
_REPEATED_COMMAS = re.compile(r",,+")
_WORD_CHARACTER = re.compile(r"[^\W_]")
_LANGUAGE_PREFIX = re.compile(r"(?:[a-z]{2,3}|simple|zh-[a-z-]+|be-[a-z-]+|roa-[a-z-]+):")

_FILE_PREFIXES = ("file", "image", "media", "category")
_MAX_LINK_DEPTH = 16
# Characters of <nowiki> text that mean something to the steps below, set aside in a private-use area.
_PROTECTED = {ord(character): 0xF0000 + ord(character) for character in "[]{}|'=*#:;<>_&"}
_RESTORED = {protected: character for character, protected in _PROTECTED.items()}


def to_plain_text(markup: str, dropped_namespaces: Sequence[str] = ()) -> str:
    """Plain text of one page, one paragraph, list item or heading a line; empty if nothing is left.

    Args:
      markup: wiki markup, decoded from XML.
      dropped_namespaces: names of the File and Category namespaces in the wiki's language; the English ones are known.
    """
    text = _drop_comments(markup)
    has_nowiki = _NOWIKI.search(text) is not None
    if has_nowiki:
        text = _protect_nowiki(text)
    text = _drop_elements(text)
    text = _drop_templates_and_tables(text)
    text = _resolve_links(text, (*_FILE_PREFIXES, *(name.lower() for name in dropped_namespaces)))
    text = _EXTERNAL_LINK.sub(_external_link_text, text)
    text = _TAG.sub("", _BREAK.sub("\n\n", text))
    text = _SWITCH.sub("", _QUOTES.sub("", text))
    plain = "\n".join(_drop_empty_sections(_tidy_lines(_paragraphs(text.split("\n")))))
    return plain.translate(_RESTORED) if has_nowiki else plain


def _drop_comments(text: str) -> str:
    kept: list[str] = []
    position = 0
    while (start := text.find("<!--", position)) >= 0:
        kept.append(text[position:start])
        end = text.find("-->", start + len("<!--"))
        if end < 0:
            return "".join(kept)
        position = end + len("-->")
    return "".join(kept) + text[position:]


def _protect_nowiki(text: str) -> str:
    kept: list[str] = []
    position, inside = 0, False
    for match in _NOWIKI.finditer(text):
        piece = text[position : match.start()]
        kept.append(piece.translate(_PROTECTED) if inside else piece)
        position = match.end()
        if not match[2]:
            inside = not match[1]
    kept.append(text[position:])
    return "".join(kept)


def _drop_elements(text: str) -> str:
    """Removes elements with their content, the outermost of each; a tag without its partner goes alone."""
    tags = [
        (match.start(), match.end(), match[2].lower(), bool(match[1]), match[0].endswith("/>"))
        for match in _ELEMENT.finditer(text)
    ]
    closers: dict[str, list[int]] = {}
    for start, _, name, is_closing, _ in reversed(tags):
        if is_closing:
            closers.setdefault(name, []).append(start)
    ends = {start: end for start, end, *_ in tags}
    spans = []
    position = 0
    for start, end, name, is_closing, is_empty in tags:
        if start < position:
            continue
        if not is_closing and not is_empty:
            waiting = closers.get(name, [])
            while waiting and waiting[-1] < start:
                waiting.pop()
            end = ends[waiting[-1]] if waiting else end
        spans.append((start, end))
        position = end
    return _without(text, spans)


def _drop_templates_and_tables(text: str) -> str:
    """Removes balanced `{{...}}` and `{|...|}`; braces without a partner go alone."""
    spans: list[tuple[int, int]] = []
    opened: list[tuple[str, int, int]] = []
    counts = {"template": 0, "table": 0}
    for match in _BRACES.finditer(text):
        token = match[0]
        kind = "table" if "|" in token else "template"
        if kind == "table" and not _starts_line(text, match.start(), _BEFORE_TABLE[token]):
            continue
        for _ in range(len(token) // 2):
            if token[0] == "{":
                opened.append((kind, match.start(), match.end()))
                counts[kind] += 1
            elif not counts[kind]:
                spans.append(match.span())
            else:
                found = ""
                while found != kind:  # what was opened inside and not closed goes alone
                    found, start, end = opened.pop()
                    counts[found] -= 1
                    spans.append((start, match.end() if found == kind else end))
    spans += [(start, end) for _, start, end in opened]
    return _without(text, sorted(spans))


def _starts_line(text: str, position: int, allowed: str) -> bool:
    while position and text[position - 1] in allowed:
        position -= 1
    return position == 0 or text[position - 1] == "\n"


def _without(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """`text` without spans in order of their start, of which later ones may lie inside of earlier ones."""
    kept: list[str] = []
    position = 0
    for start, end in spans:
        if start > position:
            kept.append(text[position:start])
        position = max(position, end)
    kept.append(text[position:])
    return "".join(kept)


def _resolve_links(text: str, dropped: tuple[str, ...]) -> str:
    """Puts its text in the place of every `[[...]]`, inner ones first; files and categories go."""
    buffers: list[list[str]] = [[]]
    position = too_deep = 0
    for match in _BRACKETS.finditer(text):
        buffers[-1].append(text[position : match.start()])
        position = match.end()
        if match[0] == "[[":
            if len(buffers) > _MAX_LINK_DEPTH:
                too_deep += 1
            else:
                buffers.append([])
        elif too_deep:
            too_deep -= 1
        elif len(buffers) > 1:
            link = "".join(buffers.pop())
            buffers[-1].append(_link_text(link, dropped))
    buffers[-1].append(text[position:])
    return "".join(piece for buffer in buffers for piece in buffer)


def _link_text(link: str, dropped: tuple[str, ...]) -> str:
    target, bar, label = link.partition("|")
    prefix, colon, _ = target.partition(":")
    if colon and prefix.strip().lower() in dropped:
        return ""
    if not bar and _LANGUAGE_PREFIX.match(target):
        return ""
    return label if bar and label else target.lstrip(":").replace("_", " ")


def _external_link_text(match: "re.Match[str]") -> str:
    _, _, label = match[1].partition(" ")
    return label


def _paragraphs(lines: Iterable[str]) -> Iterable[str]:
    """Joins lines that follow each other without a blank one; headings, list items and indented lines stand alone."""
    open_lines: list[str] = []
    for line in lines:
        if line.strip() and not line.startswith(_LINE_STARTS):
            open_lines.append(line)
            continue
        if open_lines:
            yield " ".join(open_lines)
            open_lines = []
        yield line
    if open_lines:
        yield " ".join(open_lines)


def _tidy_lines(lines: Iterable[str]) -> Iterable[tuple[int, str]]:
    """Clean lines with the level of heading, 0 for text; blank ones are left out."""
    for line in lines:
        line = " ".join((html.unescape(line) if "&" in line else line).split())
        level = 0
        if line.startswith("=") and line.endswith("=") and len(line) > 2:
            level = min(len(line) - len(line.lstrip("=")), len(line) - len(line.rstrip("=")))
            line = line.strip("= ")
        elif line.startswith(("|", "!")) and "|" in line:  # a row of a table whose braces did not match
            continue
        elif line[:1] in ("*", "#", ":", ";"):
            line = _LIST_MARKER.sub("", line)
        if "(" in line or "[" in line:
            line = " ".join(_JUNK_AFTER_PARENTHESIS.sub("(", _EMPTY_PARENTHESES.sub("", line)).split())
        for mark in ",.;:!?)":
            line = line.replace(" " + mark, mark)
        if ",," in line:
            line = _REPEATED_COMMAS.sub(",", line)
        line = line.lstrip(" ,;:")
        if _WORD_CHARACTER.search(line):
            yield level, line


def _drop_empty_sections(lines: Iterable[tuple[int, str]]) -> list[str]:
    """Leaves out headings with no text before the next heading of their level or above."""
    kept: list[str] = []
    headings: list[tuple[int, str]] = []
    for level, line in lines:
        if level:
            while headings and headings[-1][0] >= level:
                headings.pop()
            headings.append((level, line))
        else:
            kept += [heading for _, heading in headings]
            headings.clear()
            kept.append(line)
    return kept
