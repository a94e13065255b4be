"""Versioned prompts: files in the package, or of one's own, whose name and content make their version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template

from seqrec.semantics.store import key_of

_FOLDER = Path(__file__).parent / "prompts"
DEFAULTS = {name: _FOLDER / f"{name}-1.txt" for name in ("items", "histories", "fraud")}


@dataclass(frozen=True)
class Prompt:
    """What a language model is told, with places for what is known of an item or a history.

    Attributes:
        version: the name of its file and the beginning of the digest of its text; another text is another version.
        system: the first message, which says who answers.
        user: the second, which says what is asked. Places are written ``$name``.
        domain: what the items are, for the place ``$domain``.
    """

    version: str
    system: str
    user: str
    domain: str = "goods and media"

    @classmethod
    def read(cls, path: Path) -> Prompt:
        """Read a prompt: the system message, a line of three hyphens, and the user message.

        Raises:
            ValueError: there is no such file or line.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ValueError(f"The prompt {path} cannot be read ({error}); name a text file in UTF-8.") from error
        system, line, user = text.partition("\n---\n")
        if not line:
            raise ValueError(
                f"{path} has no line of three hyphens; write the system message, a line with --- and the user message."
            )
        return cls(f"{path.stem}@{key_of(text)[:12]}", system.strip(), user.strip())

    def about(self, domain: str) -> Prompt:
        """The same prompt for items of this kind."""
        return replace(self, domain=domain)

    def messages(self, fields: Mapping[str, str]) -> list[dict[str, str]]:
        """The two messages with every place filled.

        Raises:
            ValueError: the prompt has a place that is not known, or a dollar sign that begins none.
        """
        try:
            texts = {role: Template(text).substitute(fields, domain=self.domain) for role, text in self._parts()}
        except KeyError as missing:
            raise ValueError(
                f"The prompt {self.version} has the place ${missing.args[0]}; known are $domain, "
                f"{', '.join(f'${name}' for name in fields)}."
            ) from missing
        except ValueError as error:
            raise ValueError(
                f"The prompt {self.version} has a $ without the name of a place behind it; write $$ for a dollar sign."
            ) from error
        return [{"role": role, "content": text} for role, text in texts.items()]

    def key(self, fields: Mapping[str, str]) -> str:
        """SHA-256 of the messages."""
        return key_of(json.dumps(self.messages(fields), ensure_ascii=False))

    def _parts(self) -> tuple[tuple[str, str], ...]:
        return ("system", self.system), ("user", self.user)
