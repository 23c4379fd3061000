"""A store's URL, parsed once; the only place that knows which kind it names.

Rules:
- The query is ours to read, since obstore ignores keys that it doesn't know: an unknown one is an error
  with the nearest known.
- Credentials come from the environment, as the providers' own tools name them, never from the URL.
- Plain http only to an endpoint that says http://.
- Modules of a kind are imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from gotunnel.address import redact
from gotunnel.dataclass import dataclass
from gotunnel.errors import ConfigError
from gotunnel.storage.store import Store

_ANY = ("endpoint", "anonymous", "ca")
KEYS: Mapping[str, tuple[str, ...]] = {
    "file": (),
    "s3": (*_ANY, "region", "style"),
    "gs": _ANY,
    "az": (*_ANY, "account"),
}
VARIABLES: Mapping[str, str] = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_WANTED = "want file:///DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """`scheme` file, s3, gs or az; `bucket` "" and `path` absolute for file, else `path` is the prefix."""

    scheme: str
    bucket: str
    path: str
    options: Mapping[str, str]

    @property
    def label(self) -> str:
        """What people call it; the query holds no secret, but isn't needed to know it either."""
        return (
            self.path if self.scheme == "file" else f"{self.scheme}://{self.bucket}/{self.path}".rstrip("/")
        )


def parse_url(text: str) -> StoreUrl:
    """Parse a store's URL.  Raises ConfigError with one line, which holds no secret."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ConfigError(f"the store's URL can't be read: {_WANTED}") from None
    shown = redact(text.partition("?")[0])
    if parts.scheme not in KEYS:
        raise ConfigError(f"{shown!r} is no store: {_WANTED}")
    if "@" in parts.netloc:
        from_where = VARIABLES.get(parts.scheme)
        advice = f"set {from_where} in the environment" if from_where else "a directory needs none"
        raise ConfigError(f"a store's URL ({parts.scheme}://…) takes no user or password: {advice}")
    if parts.fragment:
        raise ConfigError(f"{shown!r}: a store's URL has no '#'; in a name it is written %23")
    path = unquote(parts.path)
    if not path.isprintable() or ".." in path.split("/"):
        raise ConfigError(f"{shown!r}: the path has '..' or a control character")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or path in ("", "/"):
            raise ConfigError(f"{shown!r}: want file:///DIR, with three slashes")
    elif not parts.hostname or parts.netloc != parts.hostname:
        raise ConfigError(f"{shown!r}: want {parts.scheme}://BUCKET/PREFIX, the bucket in lower case")
    path = path if parts.scheme == "file" else path.strip("/")
    return StoreUrl(parts.scheme, parts.netloc, path, _options(parts.scheme, parts.query))


def _options(scheme: str, query: str) -> dict[str, str]:
    """The query's keys; raises ConfigError for an unknown, doubled or ill-formed one."""
    known, found = KEYS[scheme], dict[str, str]()
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in known:
            raise ConfigError(_unknown(scheme, key, known))
        if key in found:
            raise ConfigError(f"the store's URL has {key!r} twice")
        found[key] = value
    if "endpoint" in found:
        found["endpoint"] = _endpoint(found["endpoint"])
    for key, allowed in (("style", ("path", "virtual")), ("anonymous", ("true", "false"))):
        if found.get(key, allowed[0]) not in allowed:
            raise ConfigError(f"the store's URL: {key}={found[key]!r}: want {' or '.join(allowed)}")
    return found


def _unknown(scheme: str, key: str, known: tuple[str, ...]) -> str:
    """The line about a key that isn't one; the value, which may be a secret, stays out."""
    import difflib

    if any(
        word in key.lower() for word in ("secret", "password", "access_key", "account_key", "sas", "token")
    ):
        return (
            f"the store's URL takes no credentials ({key}): set {VARIABLES.get(scheme, 'them')} "
            "in the environment"
        )
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
    return f"the store's URL: {scheme}:// has no key {key!r}: {hint}"


def _endpoint(text: str) -> str:
    """An http or https URL without userinfo and query; raises ConfigError."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(f"the store's endpoint: want http://HOST:PORT or https://…, not {redact(text)!r}")
    return text.rstrip("/")


def open_store(url: str, *, proxy_url: str = "") -> Store:
    """The store that `url` names; nothing is read or written yet.

    `proxy_url` is an HTTP proxy for an object store's requests, such as our own endpoint.  Raises
    ConfigError for a URL that is none, and where obstore isn't installed.
    """
    where = parse_url(url)
    if where.scheme == "file":
        from gotunnel.storage.disk import DiskStore

        return DiskStore(Path(where.path))
    try:
        from gotunnel.storage.objects import ObjectStore
    except ModuleNotFoundError:
        raise ConfigError(
            f"{where.label}: object stores need obstore: pip install gotunnel[bucket]"
        ) from None
    return ObjectStore(where, proxy_url=proxy_url)
