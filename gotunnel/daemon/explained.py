"""A finding in words, for those who read the status page: what it means, and what mends it."""

from __future__ import annotations

from gotunnel.address import HostPort
from gotunnel.findings.catalogue import finding


def explain(id: str, subject: str, via: str) -> tuple[str, tuple[str, ...]]:
    """(summary, fixes) of finding `id`, with what is known of `subject` (host:port, a module's path)."""
    host = port = module = ""
    try:
        target = HostPort.parse(subject)
        host, port = target.host, str(target.port)
    except ValueError:
        module = subject.partition("/@")[0]
    row = finding(id, subject, via, hop=via, host=host, port=port, module=module)
    return row.summary, row.fix
