"""What a command line makes go do, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from gotunnel.modproxy.gocommand import Place, child_directory, read_command


def needs(line: str, goflags: str = "") -> str:
    """In short: "" nothing, else whether infos are asked, and which zips."""
    command = read_command(line.split(), goflags)
    if command.needs is None:
        return ""
    return ("armed " if command.armed else "") + ("info " if command.needs.infos else "") + command.needs.zips


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("go mod tidy", "all"),
        ("go mod tidy -compat 1.20", "all"),
        ("go mod download", "info required"),
        ("go mod download -x all", "info required"),
        ("go mod download a.b/c@v1.0.0", ""),
        ("go mod vendor", "info imported"),
        ("go mod graph", "none"),
        ("go mod verify", "none"),
        ("go mod why -m a.b/c", "all"),
        ("go mod edit -json", ""),
        ("go mod init x", ""),
        ("go mod", ""),
        ("go", ""),
        ("go build ./...", "info imported"),
        ("/usr/local/go/bin/go test -run X ./...", "info imported"),
        ("go1.22.3 vet", "info imported"),
        ("go -C sub build", "info imported"),
        ("go run -tags x .", "info imported"),
        ("go run -tags x a.b/c@v1.0.0 arg", ""),
        ("go run . user@host", "info imported"),
        ("go run -exec a@b .", "info imported"),
        ("go install -v a.b/c@latest", ""),
        ("go install ./...", "info imported"),
        ("go get -u a.b/c@v1.0.0", "info all"),
        ("go generate", "info imported"),
        ("go list ./...", "info imported"),
        ("go list -m -u all", "info none"),
        ("go list -m=false ./...", "info imported"),
        ("go list -m -versions a.b/c", ""),
        ("go list -m a.b/c@latest", ""),
        ("go tool stringer -x", "armed info imported"),
        ("go version", ""),
        ("go env GOPROXY", ""),
        ("go fmt ./...", ""),
        ("go help mod", ""),
        ("go clean -modcache", ""),
        ("make all", "armed info imported"),
        ("bash", "armed info imported"),
        ("gofmt -l .", "armed info imported"),
        ("env X=1 go build", "armed info imported"),
    ],
)
def test_what_a_command_needs(line: str, wanted: str) -> None:
    assert needs(line) == wanted


def tree(root: Path, **files: str) -> None:
    """Files by name, "__" for a slash and "_" for a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def found(line: str, cwd: Path, **env: str) -> Place:
    return child_directory(line.split(), cwd, env)


def test_go_mod_is_looked_for_upwards_from_where_the_command_runs(tmp_path: Path) -> None:
    tree(tmp_path, a__go_mod="module a\n", a__sub__x_go="", b__go_mod="module b\n")
    up = found("go build", tmp_path / "a" / "sub")
    assert (up.go_mod, up.go_sum) == (tmp_path / "a/go.mod", tmp_path / "a/go.sum")
    assert (up.directory, up.root) == (tmp_path / "a/sub", tmp_path / "a")
    for line in ("go -C ../../b build", "go build -C=../../b", "go mod tidy -C ../../b"):
        assert found(line, tmp_path / "a" / "sub").go_mod == tmp_path / "b/go.mod", line
    assert not found("go build", tmp_path / "b", GO111MODULE="off").has_modules
    assert not found("go build", tmp_path / "a" / "sub", GO111MODULE="off").has_modules


def test_modfile_of_flag_and_of_goflags(tmp_path: Path) -> None:
    tree(tmp_path, go_mod="module a\n", sub__x_go="")
    one = found("go build -modfile=alt.mod", tmp_path / "sub")
    assert (one.go_mod, one.go_sum) == (tmp_path / "sub/alt.mod", tmp_path / "sub/alt.sum")
    assert one.root == tmp_path
    two = found("go build", tmp_path, GOFLAGS="-mod=mod '-modfile=/x/y'")
    assert (two.go_mod, two.go_sum) == (Path("/x/y"), Path("/x/y.sum"))
    assert found("make", tmp_path, GOFLAGS="-modfile=alt.mod").go_mod == tmp_path / "alt.mod"
    # the command line wins
    assert found("go build -modfile z.mod", tmp_path, GOFLAGS="-modfile=alt.mod").go_mod == tmp_path / "z.mod"


def test_a_workspace_and_how_it_is_turned_off(tmp_path: Path) -> None:
    tree(tmp_path, go_work="go 1.22\nuse ./a\n", a__go_mod="module a\n", other_work="go 1.22\n")
    assert found("go build", tmp_path / "a").go_work == tmp_path / "go.work"
    assert found("go build", tmp_path / "a", GOWORK="off").go_work is None
    assert (
        found("go build", tmp_path / "a", GOWORK=str(tmp_path / "other.work")).go_work
        == tmp_path / "other.work"
    )
    assert found("go build", tmp_path).has_modules  # the workspace is enough
    # -modfile isn't for workspaces: go refuses it
    assert found("go build -modfile=x.mod", tmp_path / "a").go_mod == tmp_path / "a/go.mod"


def test_a_vendor_directory_in_use(tmp_path: Path) -> None:
    tree(tmp_path, go_mod="module a\n\ngo 1.22\n", vendor__modules_txt="", old__go_mod="module b\ngo 1.13\n")
    tree(tmp_path, old__vendor__modules_txt="")
    assert found("go build", tmp_path).vendored
    assert found("go tool x", tmp_path).vendored
    assert not found("go build -mod=mod", tmp_path).vendored
    assert not found("go build", tmp_path, GOFLAGS="-mod=readonly").vendored
    assert not found("go mod tidy", tmp_path).vendored
    assert not found("go get a.b/c", tmp_path).vendored
    assert not found("go build", tmp_path / "old").vendored
    assert found("go build -mod=vendor", tmp_path / "old").vendored
    # beside a go.work it counts from go 1.22 on
    tree(tmp_path, w__go_work="go 1.21\n", w__vendor__modules_txt="")
    assert not found("go build", tmp_path / "w").vendored
    tree(tmp_path, w__go_work="go 1.22\n")
    assert found("go build", tmp_path / "w").vendored
