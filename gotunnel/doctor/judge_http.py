"""What an HTTP answer means for go: pure, over one Seen.

Rules:
- 404 and 410 are a source's honest word about a module, never a fault of the network.
- HTML where a module answer was due is a portal's; so is a redirect that leads from there to HTML.
- A page of the import path (`meta`) is HTML by nature: only its go-import tags count, whatever its status, as
  for go.
- Where a git server leads to a page of its own, that is its log-in (GitLab); elsewhere it is a portal's.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from gotunnel.doctor.model import Need, Seen

_MODULE_KINDS = ("source", "sumdb", "toolchain")
_STATUS = {
    401: "http.unauthorized",
    403: "http.forbidden",
    407: "proxy.auth-required",
    429: "http.rate-limited",
    451: "http.forbidden",
    511: "http.captive-portal",  # RFC 6585 §6
}
_SMALL_ENDS = ("/list", "/@latest", ".info", ".mod", "/supported", "/latest")


def is_html(content_type: str, body: bytes) -> bool:
    """Is it a web page?"""
    if content_type.partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml"):
        return True
    start = body[:200].lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head"))


def is_portal(seen: Seen) -> bool:
    """Did a web page come where go waits for a module's answer?"""
    if seen.status == 511:
        return True
    final = seen.notes.get("final", {})
    if wants_module(seen.need):
        if final.get("html") and final.get("status") == 200:
            return True
        if seen.notes.get("unverified") and _leads_away(seen):
            return True
        plain = not seen.need.tls or seen.headers.get("location", "").lower().startswith("http:")
        if final.get("error") and _leads_away(seen) and plain:
            return True  # a portal's own server, which isn't reached as it should be, or not by go
        return seen.status == 200 and is_html(seen.headers.get("content-type", ""), seen.body)
    if seen.need.kind == "vcs-https" and "/info/refs" in seen.need.path:
        away = final.get("html") and final.get("status") == 200 and _leads_away(seen)
        return bool(away) or (seen.status == 200 and is_html(seen.headers.get("content-type", ""), seen.body))
    if seen.need.kind == "meta" and not seen.notes.get("go_import") and not _trusted(seen):
        return _leads_away(seen)
    return False


def wants_module(need: Need) -> bool:
    """Would go read the answer as a module's file, a list, or a record?"""
    path = urlsplit(need.path).path
    return need.kind in _MODULE_KINDS and (need.kind == "sumdb" or "/@" in path or "/sumdb/" in path)


def _trusted(seen: Seen) -> bool:
    return seen.certificate is not None and seen.certificate.trusted


def _leads_away(seen: Seen) -> bool:
    """A redirect to another host?"""
    if seen.status not in (301, 302, 303, 307, 308):
        return False
    host = urlsplit(seen.headers.get("location", "")).hostname
    return host is not None and host.lower() != seen.need.host.lower()


def verdict(seen: Seen) -> tuple[str, str] | None:
    """(id, one line) of what is wrong with the answer; None where go could go on, or where none came."""
    status, host = seen.status, seen.need.host
    if status is None:
        return None
    if is_portal(seen):
        where = seen.headers.get("location", "")
        led = f", led on to {where[:120]}" if where else ""
        return "http.captive-portal", f"{host}: a web page in place of a module's answer{led}"
    final = seen.notes.get("final", {})
    status = final.get("status") or status
    said = f"{host}: status {status}"
    if seen.need.kind == "meta" and seen.notes.get("go_import"):
        return None
    if seen.need.kind == "meta" and status in (200, 404, 410):
        return "import.no-meta", f"{host}: the page has no go-import tag (status {status})"
    if seen.need.kind == "vcs-https" and final.get("html") and status == 200:
        return "vcs.credentials", f"{host}: leads to a page for logging in: {final.get('url')}"
    if seen.need.kind == "vcs-https" and status in (401, 403):
        return ("vcs.denied" if _known_here(seen) else "vcs.credentials"), said
    if status in _STATUS:
        if status == 429 and (wait := seen.headers.get("retry-after")):
            said += f", Retry-After: {wait[:40]}"
        return _STATUS[status], said
    if status >= 500:
        return "http.server-error", said
    if error := str(final.get("error") or ""):
        known = error if "." in error and " " not in error else "http.server-error"
        return known, f"{final.get('url')}: {error} (after a redirect from {host})"
    return _body(seen)


def _known_here(seen: Seen) -> bool:
    return seen.notes.get("credentials") == "sent" and seen.status == 403


def _body(seen: Seen) -> tuple[str, str] | None:
    body = seen.notes.get("body", {})
    end, detail, host = body.get("end", "whole"), body.get("detail", ""), seen.need.host
    if end == "truncated":
        return "http.truncated", f"{host}: the answer broke off {detail}"
    if end == "stalled":
        return "http.timeout", f"{host}: the answer stopped {detail}"
    path = urlsplit(seen.need.path)
    small = path.path.endswith(_SMALL_ENDS) or "go-get=1" in path.query or "/lookup/" in path.path
    if end == "endless" and small:
        return "http.endless", f"{host}: no end after {body.get('size', 0)} bytes"
    if "h1" in seen.notes:
        return "sum.mismatch", f"{host} gives another go.mod than go.sum vouches for"
    return None
