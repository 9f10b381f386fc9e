"""Credentials stay out of everything that is printed: URLs, messages of clients, tracebacks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Secrets", "safe_url"]

_SECRET_OPTION = re.compile(
    r"key|secret|token|passw|pwd|credential|sas|signature|auth|connection_string|header|cookie",
    re.IGNORECASE,
)
_SHORTEST = 4  # shorter texts stand in ordinary words too
_USER = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_QUERY = re.compile(
    r"(?<=[?&])([^=&\s]*(?:sig|token|key|secret|credential)[^=&\s]*)=[^&\s]+", re.IGNORECASE
)


def safe_url(url: str) -> str:
    """`url` without user, password and signatures.

    Example:
        >>> safe_url("ftp://me:word@host/logs?sig=abc")
        'ftp://***@host/logs?sig=***'
    """
    # abfs://container@account is an address, and holds no password.
    users = url if re.match(r"(abfss?|wasbs?|az)://[^:@/]+@", url) else _USER.sub("***", url)
    return _QUERY.sub(r"\1=***", users)


class Secrets:
    """What `storage_options` and URL of one place hold that nobody may read.

    Example:
        >>> secrets = Secrets("s3://bucket", {"key": "AKIA123", "client_kwargs": {}})
        >>> secrets.hide("InvalidAccessKeyId: AKIA123"), secrets
        ('InvalidAccessKeyId: ***', Secrets(1 hidden))
    """

    def __init__(self, url: str = "", storage_options: Mapping[str, Any] | None = None) -> None:
        found = set(_leaves(dict(storage_options or {}), secret=False))
        for user in _USER.findall(url) if safe_url(url) != url else ():
            found.update([user, user.partition(":")[2]])
        # The longest first: one may hold another.
        self._texts = sorted(
            (text for text in found if len(text) >= _SHORTEST), key=len, reverse=True
        )

    def __repr__(self) -> str:
        return f"Secrets({len(self._texts)} hidden)"

    def hide(self, text: str) -> str:
        """`text` with stars for every secret."""
        for secret in self._texts:
            text = text.replace(secret, "***")
        return safe_url(text)

    def shown_by(self, error: BaseException | None) -> bool:
        """Whether the traceback of `error` would show one."""
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            text = f"{error} {error!r}"
            if self.hide(text) != text:
                return True
            error = error.__cause__ or error.__context__
        return False


def _leaves(value: Any, *, secret: bool) -> Iterator[str]:
    """Every text below an option whose name is that of a secret."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, secret=secret or bool(_SECRET_OPTION.search(str(name))))
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _leaves(item, secret=secret)
    elif secret and isinstance(value, bytes):
        yield value.decode("utf-8", errors="replace")
    elif secret and isinstance(value, str):
        yield value
        # The parts of a connection string are secrets by themselves.
        for part in value.split(";"):
            name, found, text = part.partition("=")
            if found and re.search("key|sig|secret|token", name, re.IGNORECASE):
                yield text
