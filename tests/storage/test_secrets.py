"""What is secret never shows: in URLs, messages, reprs and chained errors."""

from __future__ import annotations

import pytest

from jaxlog.storage import Secrets, safe_url

OPTIONS = {
    "key": "AKIAEXAMPLE",
    "secret": "wJalrXUtnFEMI",
    "client_kwargs": {"aws_session_token": "tokentoken", "region_name": "eu-west-1"},
    "connection_string": "AccountName=me;AccountKey=c2VjcmV0;BlobEndpoint=http://host",
    "headers": ["Bearer abcdef"],
    "anon": False,
    "password": b"bytes-too",
    "endpoint_url": "http://127.0.0.1:9000",
}


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("s3://bucket/logs", "s3://bucket/logs"),
        ("/home/me@work/logs", "/home/me@work/logs"),
        ("sftp://me:word@host:22/logs", "sftp://***@host:22/logs"),
        ("ftp://me@host/logs", "ftp://***@host/logs"),
        ("abfs://container@account.dfs.core.windows.net/a", None),
        ("https://host/a?sv=1&sig=aBc%2F&se=2", "https://host/a?sv=1&sig=***&se=2"),
        ("https://host/a?X-Amz-Signature=abc", "https://host/a?X-Amz-Signature=***"),
        ("simplecache::ftp://me:word@host/a", "simplecache::ftp://***@host/a"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, safe) -> None:
    assert safe_url(url) == (safe or url)


@pytest.mark.parametrize(
    "secret",
    ["AKIAEXAMPLE", "wJalrXUtnFEMI", "tokentoken", "c2VjcmV0", "Bearer abcdef", "bytes-too"],
)
def test_every_secret_option_is_hidden(secret) -> None:
    secrets = Secrets("s3://bucket", OPTIONS)
    assert secrets.hide(f"403: {secret} is not known") == "403: *** is not known"
    assert secret not in repr(secrets)


def test_what_is_no_secret_stays() -> None:
    secrets = Secrets("s3://bucket", OPTIONS)
    text = "cannot connect to http://127.0.0.1:9000 in eu-west-1 of bucket"
    assert secrets.hide(text) == text


def test_a_password_of_the_url_is_hidden_by_itself() -> None:
    assert Secrets("ftp://me:longword@host").hide("login with longword") == "login with ***"


def test_a_cause_that_shows_one_is_found() -> None:
    secrets = Secrets("", OPTIONS)
    error = OSError("refused")
    assert not secrets.shown_by(error)
    error.__cause__ = ValueError("signed by wJalrXUtnFEMI")
    assert secrets.shown_by(error)
    assert not secrets.shown_by(None)
