"""Removes credentials from everything that is printed: URLs, messages of clients, tracebacks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Secrets", "safe_url"]

_SECRET_OPTION = re.compile(
    r"key|secret|token|passw|pwd|credential|sas|signature|auth|connection_string|header|cookie",
    re.IGNORECASE,
)
_SHORTEST = 4  # do not hide shorter secrets: they occur within ordinary words
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
    # In abfs://container@account the part before @ is not a user.
    users = url if re.match(r"(abfss?|wasbs?|az)://[^:@/]+@", url) else _USER.sub("***", url)
    return _QUERY.sub(r"\1=***", users)


class Secrets:
    """The credentials in the URL and the `storage_options` of one destination.

    Example:
        >>> secrets = Secrets("s3://bucket", {"key": "AKIA123", "client_kwargs": {}})
        >>> secrets.hide("InvalidAccessKeyId: AKIA123"), secrets
        ('InvalidAccessKeyId: ***', Secrets(1 hidden))
    """

    def __init__(self, url: str = "", storage_options: Mapping[str, Any] | None = None) -> None:
        found = set(_leaves(dict(storage_options or {}), secret=False))
        for user in _USER.findall(url) if safe_url(url) != url else ():
            found.update([user, user.partition(":")[2]])
        # Longest first, because one secret may contain another.
        self._texts = sorted(
            (text for text in found if len(text) >= _SHORTEST), key=len, reverse=True
        )

    def __repr__(self) -> str:
        return f"Secrets({len(self._texts)} hidden)"

    def hide(self, text: str) -> str:
        """`text` with every secret replaced by `***`."""
        for secret in self._texts:
            text = text.replace(secret, "***")
        return safe_url(text)

    def shown_by(self, error: BaseException | None) -> bool:
        """Whether the traceback of `error`, with its causes, would show a secret."""
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            text = f"{error} {error!r}"
            if self.hide(text) != text:
                return True
            error = error.__cause__ or error.__context__
        return False


def _leaves(value: Any, *, secret: bool) -> Iterator[str]:
    """The strings at or below options whose name says that they are secret."""
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
        # Clients print parts of a connection string, so each secret part is one more secret.
        for part in value.split(";"):
            name, found, text = part.partition("=")
            if found and re.search("key|sig|secret|token", name, re.IGNORECASE):
                yield text
