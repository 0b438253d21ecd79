"""What may name a gallery or a person."""

from __future__ import annotations

import re

from service.domain.errors import InvalidRequest

GALLERY_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
PERSON_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$")


def check_gallery_name(name: str) -> str:
    """The name itself, if it may name a gallery.

    Raises:
        InvalidRequest: it is empty, over 64 characters, or holds anything but letters, digits, dot, dash, underscore.
    """
    if not GALLERY_NAME.fullmatch(name):
        raise InvalidRequest(
            "a gallery name is 1 to 64 letters, digits, dots, dashes or underscores, and starts with a letter or digit",
            field="gallery",
        )
    return name


def check_person_id(person_id: str) -> str:
    """The id itself, if it may name a person.

    Raises:
        InvalidRequest: it is empty, over 128 characters, or holds a character that a URL path would need to escape.
    """
    if not PERSON_ID.fullmatch(person_id):
        raise InvalidRequest(
            "a person id is 1 to 128 letters, digits, dots, dashes, underscores, colons or @, "
            "and starts with a letter or digit",
            field="person_id",
        )
    return person_id
