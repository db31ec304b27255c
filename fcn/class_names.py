"""What classes may be called."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

#: The most classes: their maps at a picture's size would fill the memory.
MOST_CLASSES = 4096
#: Of a name, in characters.
LONGEST_NAME = 200


def class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Return names as they are, or refuse them: they go into files, pictures and on terminals."""
    if isinstance(classes, (str, bytes)):
        raise TypeError(f"classes: expected a name each, got {classes!r:.80}")
    names = tuple(classes)
    for name in names:
        if not isinstance(name, str) or not name:
            raise TypeError(f"classes: expected names, got {name!r:.80}")
        if len(name) > LONGEST_NAME or any(unicodedata.category(c) == "Cc" for c in name):
            raise ValueError(
                f"classes: expected names of at most {LONGEST_NAME} characters, none of them a "
                f"control character, got {name!r:.80}"
            )
    if not 1 <= len(names) <= MOST_CLASSES:
        raise ValueError(f"classes: expected 1 to {MOST_CLASSES} names, got {len(names)}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"classes: expected each name once, got {twice!r} twice")
    return names
