"""A store's URL: what it may say, and what each mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from gotunnel.errors import ConfigError
from gotunnel.storage import open_store
from gotunnel.storage.disk import DiskStore
from gotunnel.storage.open import StoreUrl, parse_url


@pytest.mark.parametrize(
    ("text", "want", "label"),
    [
        ("file:///var/cache", StoreUrl("file", "", "/var/cache", {}), "/var/cache"),
        ("file:///a%20b/%23c", StoreUrl("file", "", "/a b/#c", {}), "/a b/#c"),
        ("s3://bkt", StoreUrl("s3", "bkt", "", {}), "s3://bkt"),
        (
            "s3://bkt/team/go/?endpoint=http://10.0.0.1:9000/&region=eu-west-1&style=virtual",
            StoreUrl("s3", "bkt", "team/go",
                     {"endpoint": "http://10.0.0.1:9000", "region": "eu-west-1", "style": "virtual"}),
            "s3://bkt/team/go",
        ),
        ("gs://bkt/x?anonymous=true", StoreUrl("gs", "bkt", "x", {"anonymous": "true"}), "gs://bkt/x"),
        ("az://box/x?account=acme", StoreUrl("az", "box", "x", {"account": "acme"}), "az://box/x"),
    ],
)  # fmt: skip
def test_what_a_url_says(text: str, want: StoreUrl, label: str) -> None:
    assert parse_url(text) == want
    assert parse_url(text).label == label


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no store: want file:///DIR"),
        ("/var/cache", "is no store: want file:///DIR"),
        ("ftp://host/x", "is no store"),
        ("http://[::1", "can't be read"),
        ("file://host/x", "with three slashes"),
        ("file:///", "want file:///DIR"),
        ("file:///a/../b", "'..'"),
        ("file:///a%0ab", "control character"),
        ("file:///a?region=x", "file:// has no key 'region': known: none"),
        ("s3:///prefix", "want s3://BUCKET/PREFIX"),
        ("s3://bkt:80/x", "want s3://BUCKET/PREFIX"),
        ("s3://bkt/x#y", "no '#'"),
        (
            "s3://AKIA:s3cr3t@bkt/x",
            "takes no user or password: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
        ("s3://bkt?endpont=http://h", "did you mean 'endpoint'?"),
        ("s3://bkt?secret_access_key=s3cr3t", "set AWS_ACCESS_KEY_ID"),
        ("az://bkt?sas=s3cr3t", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("s3://bkt?region=a&region=b", "'region' twice"),
        ("s3://bkt?style=odd", "want path or virtual"),
        ("s3://bkt?endpoint=minio:9000", "want http://HOST:PORT"),
        ("s3://bkt?endpoint=http://lab:s3cr3t@h", "want http://HOST:PORT"),
        ("gs://bkt?region=x", "gs:// has no key 'region': known: endpoint, anonymous, ca"),
    ],
)
def test_each_mistake_is_named_and_no_secret_shown(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(text)
    assert says in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_certificate_that_isnt_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"ca={tmp_path}/none"):
        open_store(f"s3://bkt?ca={tmp_path}/none")


def test_a_directory_is_opened_without_touching_it(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/new")
    assert isinstance(store, DiskStore)
    assert not (tmp_path / "new").exists()
