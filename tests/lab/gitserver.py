"""Git over https, by git's own http-backend, and the pages that tell go where a module's repository is.

    python -m tests.lab.gitserver ADDRESS PORT ROOT IMPORTS --log FILE --cert FILE --key FILE

Rules:
- ROOT holds bare repositories; a URL ending in .git, with what follows it, is one of them.
- IMPORTS is a JSON file, module path -> repository URL: `?go-get=1` below such a path is answered
  with its go-import tag.  The URL may be https, or ssh to an `Sshd` of the lab, which needs no more
  than the repository's path.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gzip
import json
import os
import subprocess
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab import proc, webserver
from tests.lab.pki import Certificate
from tests.lab.proc import Place


def can_serve_git() -> tuple[bool, str]:
    """Whether git and its http-backend are installed; else why not, in one line."""
    if proc.tool("git") is None:
        return False, "not installed: git"
    backend = Path(proc.run(["git", "--exec-path"]).stdout.strip(), "git-http-backend")
    return backend.exists(), "" if backend.exists() else "git has no http-backend here"


def make_repository(bare: Path, module: str, versions: Sequence[str] = ("v1.0.0", "v1.2.0")) -> Path:
    """Make a bare repository of a Go module with a tag for each version; gives its path.

    The module's package is called lib, its constant Version is the version.
    """
    bare.mkdir(parents=True)
    person = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
              for what, value in (("NAME", "lab"), ("EMAIL", "lab@lab.example"),
                                  ("DATE", "2024-01-02T03:04:05Z"))}  # fmt: skip
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(bare), "GIT_CONFIG_NOSYSTEM": "1"} | person
    git = functools.partial(proc.run, env=env, cwd=bare)
    git(["git", "init", "-q", "--bare", "-b", "main", "."])
    parent: list[str] = []
    for version in versions:
        files = {
            "go.mod": f"module {module}\n\ngo 1.21\n",
            "lib.go": f'package lib\n\n// Version of this module.\nconst Version = "{version}"\n',
        }
        listing = ""
        for name, text in files.items():
            blob = git(["git", "hash-object", "-w", "--stdin"], stdin=text).stdout.strip()
            listing += f"100644 blob {blob}\t{name}\n"
        tree = git(["git", "mktree"], stdin=listing).stdout.strip()
        commit = git(["git", "commit-tree", tree, *parent, "-m", version]).stdout.strip()
        git(["git", "update-ref", "refs/heads/main", commit])
        git(["git", "tag", version, commit])
        parent = ["-p", commit]
    return bare


class GitServer(proc.PythonService):
    """Such a server.  `name` is the host name in its URLs."""

    module = "gitserver"

    def __init__(
        self,
        directory: Path,
        root: Path,
        certificate: Certificate,
        *,
        imports: Mapping[str, str] | None = None,
        name: str = "",
        place: Place | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        listen: str | None = None,
    ) -> None:
        super().__init__(directory, place=place, address=address, port=port, listen=listen)
        self.root, self.certificate, self.name = root, certificate, name
        self._imports, self._access = directory / "imports.json", directory / "access.jsonl"
        self.set_imports(imports or {})

    def set_imports(self, imports: Mapping[str, str]) -> None:
        """Answer `?go-get=1` so: module path -> repository URL.  Read at each request."""
        self._imports.write_text(json.dumps(dict(imports)))

    @property
    def url(self) -> str:
        """Its URL by name (its address where it has none)."""
        return f"https://{self.name or self.address}" + ("" if self.port == 443 else f":{self.port}")

    def requests(self) -> list[dict[str, Any]]:
        """Every request so far: client, method, path, status."""
        return webserver.read_log(self._access)

    def clear_log(self) -> None:
        """Forget the requests so far."""
        if self._access.exists():
            with self._access.open("r+") as log:
                log.truncate(0)

    def _arguments(self) -> list[str]:
        return [str(self.root), str(self._imports), "--log", str(self._access),
                "--cert", str(self.certificate.cert), "--key", str(self.certificate.key)]  # fmt: skip


class _Handler(webserver.Handler):
    root: Path
    imports: Path
    log: webserver.JsonLog

    def do_GET(self) -> None:
        """A page for go, or git's backend."""
        url = urllib.parse.urlsplit(self.path)
        body = self._body()  # read in any case, or the next request would start with it
        repository = ".git/" in url.path or url.path.endswith(".git")
        status, head, answer = self._git(url, body) if repository else self._page(url)
        self.log.write(client=self.client_address[0], method=self.command, path=self.path, status=status)
        self.send_response(status)
        for name, value in head.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _page(self, url: urllib.parse.SplitResult) -> tuple[int, dict[str, str], bytes]:
        wanted = self.headers.get("Host", "").partition(":")[0] + url.path.rstrip("/")
        for module, repository in json.loads(self.imports.read_text()).items():
            if wanted == module or wanted.startswith(module + "/"):
                tag = f'<meta name="go-import" content="{module} git {repository}">'
                page = f"<!doctype html><html><head>{tag}</head></html>\n"
                return 200, {"Content-Type": "text/html; charset=utf-8"}, page.encode()
        return 404, {"Content-Type": "text/plain"}, b"not found\n"

    def _git(self, url: urllib.parse.SplitResult, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": urllib.parse.unquote(url.path),
            "QUERY_STRING": url.query,
            "REQUEST_METHOD": self.command,
            "REMOTE_ADDR": self.client_address[0],
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }  # fmt: skip
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=False)
        text, _, answer = done.stdout.partition(b"\r\n\r\n")
        head: dict[str, str] = {}
        for line in text.decode("latin-1").split("\r\n"):
            name, colon, value = line.partition(":")
            if colon:
                head[name] = value.strip()
        with contextlib.suppress(ValueError):
            return int(head.pop("Status", "200 OK").split()[0]), head, answer
        return 500, {}, done.stderr


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("root", type=Path)
    parser.add_argument("imports", type=Path)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--cert", required=True)
    parser.add_argument("--key", required=True)
    args = parser.parse_args()
    _Handler.root, _Handler.imports, _Handler.log = args.root, args.imports, webserver.JsonLog(args.log)
    webserver.serve(webserver.Server(args.address, args.port, _Handler, args.cert, args.key))


if __name__ == "__main__":
    main()
