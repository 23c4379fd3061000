"""Real object stores on loopback: versitygw (S3) and Azurite (Azure).

Rules:
- Each keeps its objects in its own directory or in memory, and has the bucket `bucket` when it is ready.
- `variables` is the environment that a client needs: the providers' own names, with the lab's credentials,
  which are no secrets (Azurite's are published by its makers).
- There is none for Google here: fake-gcs-server 1.56 takes no plain PUT, which is what obstore sends.
- Programs are looked for on PATH, beside this Python and where `go install` puts them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import sys
import urllib.request
from collections.abc import Mapping
from email.utils import formatdate
from pathlib import Path

from tests.lab import proc

BUCKET = "bucket"
_PLACES = (Path(sys.executable).parent, Path.home() / "go/bin")


class ObjectServer(proc.Service):
    """An object store with one bucket; `store_url` is what `[cache] url` takes."""

    program = ""
    install = ""
    scheme = ""
    query = ""

    @classmethod
    def find(cls) -> str | None:
        """The path of the program."""
        beside = (str(place / cls.program) for place in _PLACES if (place / cls.program).exists())
        return proc.tool(cls.program) or next(beside, None)

    @classmethod
    def available(cls) -> tuple[bool, str]:
        """Whether it is installed; else how to install it, in one line."""
        found = cls.find() is not None
        return found, "" if found else f"not installed: {cls.program}: {cls.install}"

    @property
    def endpoint(self) -> str:
        """The URL that clients talk to."""
        return f"http://{self.address}:{self.port}"

    @property
    def variables(self) -> Mapping[str, str]:
        """The client's environment."""
        return {}

    def store_url(self, prefix: str = "", *, bucket: str = BUCKET) -> str:
        """The URL of the store below `prefix` in a bucket."""
        return f"{self.scheme}://{bucket}/{prefix}?endpoint={self.endpoint}{self.query}"

    def _program(self) -> str:
        found = self.find()
        if found is None:
            raise proc.LabError(self.available()[1])
        return found

    def _await_ready(self, process: proc.Process) -> None:
        super()._await_ready(process)
        self.make_bucket()

    def make_bucket(self) -> None:
        """Make the bucket; nothing happens where it is there."""

    def remove_bucket(self) -> None:
        """Remove the bucket with all that is in it."""
        raise NotImplementedError

    def _request(
        self, method: str, path: str, data: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        request = urllib.request.Request(
            f"{self.endpoint}{path}", data=data, method=method, headers=dict(headers or {})
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            answer.read()


class VersityGw(ObjectServer):
    """S3 over a directory, by a server that people run in production; buckets are directories."""

    program = "versitygw"
    install = "go install github.com/versity/versitygw/cmd/versitygw@v1.8.0"
    scheme = "s3"
    query = "&region=us-east-1"

    @property
    def variables(self) -> Mapping[str, str]:
        return {"AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "the-labs-own-secret"}

    @property
    def bucket(self) -> Path:
        """The directory of the bucket."""
        return self.directory / "buckets" / BUCKET

    def _argv(self) -> list[str]:
        (self.directory / "labels").mkdir(exist_ok=True)
        self.bucket.mkdir(parents=True, exist_ok=True)
        keys = self.variables
        return [
            self._program(), "--port", f"{self.listen}:{self.port}",
            "--access", keys["AWS_ACCESS_KEY_ID"], "--secret", keys["AWS_SECRET_ACCESS_KEY"],
            # not every file system has extended attributes
            "posix", "--sidecar", str(self.directory / "labels"), str(self.bucket.parent),
        ]  # fmt: skip

    def make_bucket(self) -> None:
        self.bucket.mkdir(exist_ok=True)

    def remove_bucket(self) -> None:
        shutil.rmtree(self.bucket)
        shutil.rmtree(self.directory / "labels" / BUCKET, ignore_errors=True)


class Azurite(ObjectServer):
    """Azure's blobs, in memory, by Azure's own emulator."""

    program = "azurite-blob"
    install = "npm install -g azurite@3.35.0"
    scheme = "az"
    query = "&account=devstoreaccount1"
    account = "devstoreaccount1"
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    @property
    def endpoint(self) -> str:
        return f"{super().endpoint}/{self.account}"

    @property
    def variables(self) -> Mapping[str, str]:
        return {"AZURE_STORAGE_ACCOUNT_KEY": self.key}

    def _argv(self) -> list[str]:
        return [
            self._program(), "--blobHost", self.listen, "--blobPort", str(self.port),
            "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck",
        ]  # fmt: skip

    def make_bucket(self) -> None:
        date, version = formatdate(usegmt=True), "2023-11-03"
        # Shared Key: https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
        to_sign = (
            "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n"
            f"/{self.account}/{self.account}/{BUCKET}\nrestype:container"
        )
        digest = hmac.digest(base64.b64decode(self.key), to_sign.encode(), hashlib.sha256)
        headers = {
            "x-ms-date": date, "x-ms-version": version, "Content-Type": "",
            "Authorization": f"SharedKey {self.account}:{base64.b64encode(digest).decode()}",
        }  # fmt: skip
        self._request("PUT", f"/{BUCKET}?restype=container", b"", headers)
