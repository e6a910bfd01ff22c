"""The plots in what a materialization shows."""

import base64
import re
from xml.etree import ElementTree

IMAGE = re.compile(r"!\[.+\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)")


def image_of(markdown: object) -> ElementTree.Element:
    """Return the image that a piece of Markdown is, and nothing else."""
    found = IMAGE.fullmatch(str(markdown))
    assert found, "Markdown that is an image and nothing else"
    return ElementTree.fromstring(base64.b64decode(found[1]))


def lines_of(markdown: object) -> list[list[tuple[float, float]]]:
    """Return the points of each line of a plot."""
    return [
        [
            (float(x), float(y))
            for x, y in (point.split(",") for point in one.attrib["points"].split())
        ]
        for one in image_of(markdown).iter()
        if one.tag.endswith("polyline")
    ]


def words_of(markdown: object) -> list[str]:
    """Return what is written on a plot."""
    return [one.text or "" for one in image_of(markdown).iter() if one.tag.endswith("text")]
