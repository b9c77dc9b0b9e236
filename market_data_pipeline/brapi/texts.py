"""Texts of Brapi as they may be logged, stored and published: one line each, without the token."""

from __future__ import annotations

import math
import re
from typing import Any

# No text that is used is longer: names and messages have bounds of their own below it.
LONGEST_TEXT = 1_000
# A shorter token is no secret, and may be a part of any word.
SHORTEST_SECRET = 8
# Of one character of the token, as `_in_any_form` finds it.
LONGEST_FORM = 14


class Texts:
    """Cleans the texts of an answer.

    Args:
        token: is removed from the texts, in any form.
    """

    def __init__(self, token: str) -> None:
        self._shortest = len(token) if len(token) >= SHORTEST_SECRET else math.inf
        # A token that begins in what is used is found whole.
        self._looked_at = LONGEST_TEXT + LONGEST_FORM * len(token)
        self._token = re.compile("".join(map(_in_any_form, token)), re.IGNORECASE)

    def clean(self, value: Any) -> Any:
        """A parsed JSON value with each of its texts cleaned.

        Characters that cannot be printed (control and format characters, line separators) become
        spaces, and the token becomes `***`.

        Raises:
            RecursionError: it is nested too deeply.
        """
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self.clean(each) for each in value]
        if isinstance(value, dict):
            return {self._text(name): self.clean(each) for name, each in value.items()}
        return value

    def _text(self, text: str) -> str:
        text = text[: self._looked_at]
        if not text.isprintable():
            text = "".join(char if char.isprintable() else " " for char in text)
        # No form of the token is shorter than the token.
        if len(text) >= self._shortest:
            text = self._token.sub("***", text)
        return text[:LONGEST_TEXT]


def _in_any_form(char: str) -> str:
    """A pattern for a character as it is, or as JSON, an address or HTML may have escaped it."""
    code = f"{ord(char):02x}"
    in_html = rf"&#(?:0{{0,4}}{ord(char)}|x0{{0,4}}{code});"
    return rf"\\{{0,4}}(?:{re.escape(char)}|u00{code}|%(?:25){{0,2}}{code}|{in_html})"
