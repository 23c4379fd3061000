"""obstore set up from a store's URL, and its errors put in our words.

Rules:
- What the URL's query says goes over what the environment says; credentials come from the environment only.
- With a proxy every request goes through it, except those to a cloud machine's own metadata address.
- The provider's text is read for a code or a status and then dropped: it may hold what a request was
  signed with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obstore.exceptions import PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, S3Store

from gotunnel.address import one_line, redact
from gotunnel.errors import ConfigError
from gotunnel.storage.open import VARIABLES, StoreUrl
from gotunnel.storage.store import Finding, StoreError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_METADATA_ADDRESSES = "169.254.169.254,169.254.170.2,fd00:ec2::254"
_ENDPOINT_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_RETRY: RetryConfig = {"max_retries": 1, "retry_timeout": timedelta(seconds=10)}
_CODE = re.compile(r"<Code>\s*(\w{1,60})\s*</Code>")
_STATUS = re.compile(r"status code: (\d{3}\b[ \w-]{0,40})")
_GONE = re.compile(
    r"NoSuchBucket|ContainerNotFound|ContainerBeingDeleted|no bucket named|bucket does not exist"
)
_FULL = re.compile(r"QuotaExceeded|InsufficientStorage|XMinioStorageFull|status code: 507")
_DENIED = re.compile(r"status code: 40[13]\b|token request|redentials")
_UNREACHABLE = re.compile(r"HTTP error|error sending request|timed out|status code: 50[234]")


class ObjectError(StoreError):
    """A StoreError that knows whether the store wasn't reached at all."""

    def __init__(self, finding: Finding, detail: str, *, unreachable: bool = False) -> None:
        super().__init__(finding, detail)
        self.unreachable = unreachable


def build(where: StoreUrl, proxy_url: str) -> S3Store | GCSStore | AzureStore:
    """The store of obstore's that `where` names.  Raises ConfigError, and obstore's own errors."""
    options = where.options
    endpoint = options.get("endpoint", "")
    given: dict[str, Any] = {
        "prefix": where.path or None,
        "client_options": _client(where, proxy_url),
        "retry_config": _RETRY,
    }
    config: Any = {}  # a TypedDict of each kind's own
    if options.get("anonymous") == "true":
        config["skip_signature"] = True
    if where.scheme == "gs":
        if endpoint:
            config["base_url"] = endpoint
        return GCSStore(where.bucket, config=config, **given)
    if endpoint:
        config["endpoint"] = endpoint
    if where.scheme == "az":
        if "account" in options:
            config["account_name"] = options["account"]
        return AzureStore(where.bucket, config=config, **given)
    if "region" in options:
        config["region"] = options["region"]
    if options.get("style") == "virtual":
        config["virtual_hosted_style_request"] = True
        if endpoint:  # obstore wants it with the bucket in the host
            parts = urlsplit(endpoint)
            config["endpoint"] = parts._replace(netloc=f"{where.bucket}.{parts.netloc}").geturl()
    return S3Store(where.bucket, config=config, **given)


def _client(where: StoreUrl, proxy_url: str) -> ClientConfig:
    """HTTP options.  The time limits that count are ours, request by request."""
    variables = (os.environ.get(name, "") for name in _ENDPOINT_VARIABLES[where.scheme])
    endpoint = where.options.get("endpoint") or next((value for value in variables if value), "")
    client: ClientConfig = {
        "connect_timeout": "5s",
        "timeout": "3h",
        "allow_http": endpoint.startswith("http://"),
        "user_agent": "gotunnel",
    }
    if proxy_url:
        client["proxy_url"] = proxy_url
        client["proxy_excludes"] = _METADATA_ADDRESSES
    if ca := where.options.get("ca"):
        try:
            client["root_certificate"] = Path(ca).expanduser().read_bytes()
        except (OSError, RuntimeError) as error:
            raise ConfigError(f"the store's ca={ca}: {error}") from error
    return client


def setup_problem(error: Exception, where: StoreUrl) -> str:
    """One line about what obstore didn't like, before any request."""
    text = str(error)
    if where.scheme == "az" and "ccount" in text:
        return f"{where.label}: which account? add ?account=NAME or set AZURE_STORAGE_ACCOUNT_NAME"
    return f"{where.label}: {one_line(redact(text.partition(chr(10))[0]), 200)}"


def is_gone(error: Exception) -> bool:
    """Whether it was the bucket that wasn't there, and not an object in it."""
    return _GONE.search(str(error)) is not None


def translate(error: Exception, label: str, proxy_url: str) -> ObjectError:
    """One line: what is wrong with the store `label`, and what to do."""
    text = str(error)
    scheme = label.partition(":")[0]
    code, status = _CODE.search(text), _STATUS.search(text)
    reason = code[1] if code else status[1].strip() if status else ""
    aside = f" ({reason})" if reason else ""
    if is_gone(error):
        kind = "container" if scheme == "az" else "bucket"
        return ObjectError(
            "unknown", f"{label}: there is no such {kind}{aside}: make it, or correct [cache] url"
        )
    if _FULL.search(text):
        return ObjectError("disk.full", f"{label} is full{aside}: run `gotunnel cache prune`")
    denied = isinstance(error, (PermissionDeniedError, UnauthenticatedError))
    if denied or _DENIED.search(text.partition("\n")[0]):
        wanted = VARIABLES.get(scheme, "the credentials")
        return ObjectError("cache.permission", f"{label} doesn't let us in{aside}: check {wanted}")
    if _UNREACHABLE.search(text.partition("\n")[0]):
        by = " by the proxy" if proxy_url else ""
        return ObjectError(
            "unknown", f"{label} can't be reached{by}{aside}: check its endpoint", unreachable=True
        )
    return ObjectError("unknown", f"{label} failed{aside or f' ({type(error).__name__})'}")
