"""Versions as go has them: semantic versions with a `v`, pseudo-versions, `+incompatible`.

Rules:
- Canonical is what go writes into go.mod: `vMAJOR.MINOR.PATCH[-PRE]`, with `+incompatible` as the only build.
- What isn't canonical (a branch, a commit, `v1.2`) is a query: its answer changes with time.
- `fits` says whether go insists that the `.info` of this version names the same version: only where the
  version agrees with the major number in the module's path.

Sources: golang.org/x/mod/semver, golang.org/x/mod/module (CanonicalVersion, CheckPathMajor,
SplitPathVersion).
"""

from __future__ import annotations

import re

_NUMBER = r"(?:0|[1-9][0-9]*)"
_PRE = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(
    rf"v(?P<major>{_NUMBER})(?:\.(?P<minor>{_NUMBER})(?:\.(?P<patch>{_NUMBER})"
    rf"(?P<pre>-{_PRE}(?:\.{_PRE})*)?(?P<build>\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?)?)?"
)
_MAJOR = re.compile(r"/v([2-9]|[1-9][0-9]+)$")
_GOPKG = re.compile(r"\.v([0-9]+)(?:-unstable)?$")

Key = tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]


def is_valid(version: str) -> bool:
    """Whether it is a semantic version at all; `v1` and `v1.2` are."""
    return _SEMVER.fullmatch(version) is not None


def is_canonical(version: str) -> bool:
    """Whether it stands for itself: complete, with no build but `+incompatible`."""
    found = _SEMVER.fullmatch(version)
    return found is not None and found["patch"] is not None and found["build"] in (None, "+incompatible")


def key(version: str) -> Key:
    """What to sort versions by; the build doesn't count.  Raises ValueError for what is no version."""
    found = _SEMVER.fullmatch(version)
    if found is None:
        raise ValueError(f"{version!r}: no version; want one such as v1.2.3")
    pre = (found["pre"] or "")[1:]
    parts = tuple(
        (False, int(part), "") if part.isdigit() else (True, 0, part) for part in pre.split(".") if part
    )
    return int(found["major"]), int(found["minor"] or 0), int(found["patch"] or 0), not pre, parts


def fits(module: str, version: str) -> bool:
    """Whether the canonical `version` agrees with the major number at the end of the path of `module`."""
    major = version[1:].partition(".")[0]
    if module.startswith("gopkg.in/"):
        gopkg = _GOPKG.search(module)
        if gopkg is None:
            return False
        # an old bug made v0.0.0 pseudo-versions of .v1
        return major == gopkg[1] or (gopkg[1] == "1" and version.startswith("v0.0.0-"))
    in_path = _MAJOR.search(module)
    if in_path is not None:
        return major == in_path[1]
    return major in ("0", "1") or version.endswith("+incompatible")
