"""A page as a test reads it."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "rect", "line", "path", "circle", "input", "hr", "img"}
OUTSIDE = {"src", "href", "srcset", "action", "data", "poster", "xlink:href"}


class Page(HTMLParser):
    """Elements with their attributes and text; whether each is closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.wrong = [], [], []
        self.feed(html)
        self.close()
        self.wrong += [f"{tag} is never closed" for tag, _, _ in self.open]

    def handle_starttag(self, tag, attributes):
        element = (tag, dict(attributes), [])
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))

    def handle_endtag(self, tag):
        if not self.open or self.open[-1][0] != tag:
            self.wrong.append(f"</{tag}> closes nothing")
        else:
            self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element[2].append(data)

    def all(self, tag, **having):
        return [
            element
            for element in self.elements
            if element[0] == tag
            and all(value in (element[1].get(name) or "") for name, value in having.items())
        ]

    def texts(self, tag, **having):
        return ["".join(text).strip() for _, _, text in self.all(tag, **having)]

    def requests(self):
        """What a browser would ask for: none but of the page itself, or inside it."""
        return [
            (tag, name, value)
            for tag, attributes, _ in self.elements
            for name, value in attributes.items()
            if name in OUTSIDE and not value.startswith(("#", "data:"))
        ]

    def numbers(self):
        """The rows of every table."""
        rows, current = [], None
        for tag, _, text in self.elements:
            if tag == "tr":
                current = []
                rows.append(current)
            elif tag in {"td", "th"}:
                current.append("".join(text).strip())
        return rows
