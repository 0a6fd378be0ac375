"""Readers of report pages for the tests: well-formedness, figures, galleries, contrast."""
import base64
import re
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "input", "br", "hr"}
SHAPES = {"rect", "line", "path", "circle"}


class Page(HTMLParser):
    """Every element closed in order, every id once; figures by their data-key, pictures, headings and text."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.stack, self.ids, self.references, self.figures = [], [], [], []
        self.images, self.headings, self.elements, self.text, self.links = [], [], [], [], []
        self.html = html
        self.feed(html)
        self.close()
        assert not self.stack, f"not closed: {self.stack}"

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        assert len(a) == len(attributes), f"an attribute twice in <{tag}>"
        self.elements.append((tag, a))
        if "id" in a:
            self.ids.append(a["id"])
        for name in ("aria-labelledby", "for"):
            self.references += a.get(name, "").split()
        if a.get("href", "").startswith("#"):
            self.references.append(a["href"][1:])
        for name in ("src", "href"):
            if name in a:
                self.links.append(a[name])
        if tag == "img":
            self.images.append(a)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.stack.append(tag)
        if "data-key" in a:
            self.figures.append([a["data-key"], float(a["data-value"]), "", len(self.stack)])

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.stack and self.stack[-1] == tag, f"</{tag}> closes {self.stack[-3:]}"
        self.stack.pop()

    def handle_data(self, data):
        self.text.append(data)
        for figure in self.figures:
            if figure[2] == "" and len(self.stack) >= figure[3]:
                figure[2] = data

    def check(self):
        assert len(set(self.ids)) == len(self.ids), "an id twice"
        missing = [r for r in self.references if r not in self.ids]
        assert not missing, f"references to nothing: {missing}"
        outside = [link for link in self.links if not link.startswith(("#", "data:"))]
        assert not outside, f"loads from elsewhere: {outside}"
        assert self.headings[0] == 1 and self.headings.count(1) == 1
        assert all(b <= a + 1 for a, b in zip(self.headings, self.headings[1:])), "a heading level left out"
        for tag, a in self.elements:
            assert not any(name.startswith("on") for name in a) and tag not in ("script", "iframe", "object")
            if tag == "svg":
                assert a.get("aria-hidden") == "true" or (a["role"] == "img" and len(a["aria-labelledby"].split()) == 2)
        for image in self.images:
            assert image["alt"] and image["src"].startswith("data:image/png;base64,")
            assert base64.b64decode(image["src"].split(",")[1], validate=True).startswith(b"\x89PNG\r\n\x1a\n")
        assert not re.search(r'="[^"]*\b(nan|inf)\b[^"]*"', re.sub(r'(alt|aria-label|src)="[^"]*"', "", self.html))

    def words(self):
        return " ".join("".join(self.text).split())


def read_page(path):
    with open(path, encoding="utf-8") as f:
        page = Page(f.read())
    page.check()
    return page


def palette(html, dark):
    rules = re.findall(r":root\{([^}]*)\}", html)
    colors = dict(re.findall(r"--(\w+):(#[0-9a-f]{3,6})\b", rules[0]))
    if dark:
        colors.update(re.findall(r"--(\w+):(#[0-9a-f]{3,6})\b", rules[1]))
    return colors


def luminance(color):
    digits = color[1:] if len(color) == 7 else "".join(2 * c for c in color[1:])
    parts = [int(digits[i:i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    first, second = sorted((luminance(a), luminance(b)), reverse=True)
    return (first + 0.05) / (second + 0.05)
