"""The table of what go, git, curl (inside git) and ssh print when something fails.

Rules:
- Line based; the first row that fits wins, so the order is the precedence: our own exact words, the way
  out, checksums (whatever keeps them from being fetched), names, connections, TLS, HTTP, bodies, modules,
  vcs, settings, local, and the compiler last.
- Every row names its `keys`: plain bytes, one of which is in any line that it fits.  The reader's prefilter
  is made of them, so a row without a rare key would slow down 100 MB logs.
- A row may choose its id by a status: `by` maps the group `status`, its "" is for all others.
- A weak row (`weak=True`) only says that something before it failed; the reader drops it where that
  something was recognised.
- Sources: Go 1.24 to 1.27 (cmd/go, net, net/http, crypto/x509, x/net), git 2.39, libcurl 7.88 and 8,
  OpenSSH 9 and 10; the outputs in tests/data/outputs were made by the real programs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field

from gotunnel.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Pattern:
    """One row."""

    id: str
    keys: tuple[bytes, ...]
    regex: re.Pattern[str]
    by: Mapping[str, str] = field(default_factory=dict)
    weak: bool = False


def _row(
    id: str, keys: str, regex: str = "", *, by: Mapping[str, str] | None = None, weak: bool = False
) -> Pattern:
    """`keys` are separated by `|`; without `regex` any of the keys, taken literally, is the pattern."""
    plain = tuple(key.encode() for key in keys.split("|"))
    pattern = regex or "|".join(re.escape(key.decode()) for key in plain)
    return Pattern(id, plain, re.compile(pattern), by or {}, weak)


# A refused CONNECT, by status or by go's bare phrase.
_CONNECT = {
    "403": "proxy.denied", "451": "proxy.denied", "407": "proxy.auth-required", "400": "proxy.not-a-proxy",
    "404": "proxy.not-a-proxy", "405": "proxy.not-a-proxy", "501": "proxy.not-a-proxy",
    "Forbidden": "proxy.denied", "Filtered": "proxy.denied", "Access violation": "proxy.denied",
    "Proxy Authentication Required": "proxy.auth-required",
    "Proxy Authorization Required": "proxy.auth-required",
    "Bad Request": "proxy.not-a-proxy", "Not Found": "proxy.not-a-proxy",
    "Not Implemented": "proxy.not-a-proxy",
    "Method Not Allowed": "proxy.not-a-proxy", "Moved Permanently": "proxy.not-a-proxy",
    "Found": "proxy.not-a-proxy", "": "proxy.bad-gateway",
}  # fmt: skip
_HTTP = {
    "401": "http.unauthorized", "403": "http.forbidden", "451": "http.forbidden", "404": "module.not-found",
    "410": "module.not-found", "407": "proxy.auth-required", "408": "http.timeout",
    "429": "http.rate-limited",
    "200": "http.captive-portal", "204": "http.captive-portal", "206": "http.truncated",
    "511": "http.captive-portal", "": "http.server-error",
}  # fmt: skip
_SUMDB = {"404": "sum.unverifiable", "410": "sum.unverifiable", "": "gosumdb.unreachable"}
_SOCKS = {
    "1": "socks.denied", "2": "socks.denied", "3": "net.unreachable", "4": "net.unreachable",
    "5": "tcp.refused", "6": "tcp.timeout", "": "socks.denied",
}  # fmt: skip

# The listener's reason phrase and text/plain body; `id` is the finding itself.
EXACT = re.compile(r"gotunnel: (?P<id>[a-z0-9]+\.[a-z0-9-]+|unknown): (?P<words>.*)")

PATTERNS: tuple[Pattern, ...] = (
    # the way out
    _row("proxy.not-a-proxy", "proxyconnect tcp",
         r"proxyconnect tcp: .*(?:first record|malformed HTTP|HTTP response to HTTPS)"),
    _row("proxy-env.unreachable", "proxyconnect tcp", r"proxyconnect tcp: (?!.*x509:)"),
    _row("proxy.not-a-proxy", "malformed HTTP", r'": malformed HTTP (?:response|status|version)'),
    _row("socks.auth-failed", "socks connect",
         r"socks connect .*(?:no acceptable authentication|authentication failed|invalid username/password)"),
    _row("tcp.refused", "socks connect", r"socks connect .*connection refused"),
    _row("net.unreachable", "socks connect", r"socks connect .* unreachable"),
    _row("tcp.timeout", "socks connect", r"socks connect .*TTL expired"),
    _row("proxy.not-a-proxy", "socks connect", r"socks connect .*unexpected protocol version"),
    _row("hop.stalled", "socks connect", r"socks connect .*(?:i/o timeout|deadline exceeded)"),
    _row("hop.closed", "socks connect", r"socks connect .*(?:EOF|reset by peer)"),
    _row("socks.denied", "socks connect"),
    _row("proxy.bad-gateway", "CONNECT tunnel failed, |Received HTTP code ",
         r"(?:CONNECT tunnel failed, response|Received HTTP code) (?P<status>\d{3})", by=_CONNECT),
    _row("hop.closed", "Proxy CONNECT aborted"),
    _row("socks.auth-failed", "SOCKS5 server.", r"User was rejected by the SOCKS5 server"),
    _row("socks.denied", "complete SOCKS",
         r"complete SOCKS\d\w? connection to \S+ \((?P<status>\d+)\)", by=_SOCKS),
    _row("socks.auth-failed", "No authentication method was acceptable"),
    _row("proxy-env.unreachable", "Could not resolve proxy: |resolve proxy name"),
    # curl connects to another host than the URL's: to the proxy
    _row("proxy-env.unreachable", "Failed to connect to ",
         r"'https?://(?:[^/@']*@)?(?P<host>[^/:']+)(?=[/:'])[^']*': Failed to connect to "
         r"(?!(?P=host) )(?P<proxy>\S+) port"),
    _row("proxy-env.unreachable", "Failed to connect to ", r"Failed to connect to \S+ port \d+ via \S+ "),
    # checksums: whatever kept them from coming
    _row("gosumdb.off", "GOSUMDB",
         r"invalid GOSUMDB|missing GOSUMDB|disabled by GOSUMDB=off|with GOSUMDB=off"),
    _row("http.captive-portal", "malformed record data|malformed note|malformed tree"),
    _row("sum.mismatch", "checksum mismatch", r"verifying \S+: checksum mismatch"),
    _row("sum.unverifiable", "verifying ",
         r"verifying .*reading https?://\S+/(?:sumdb|lookup|tile|latest)\S*: (?P<status>\d{3})\b", by=_SUMDB),
    _row("gosumdb.unreachable", "verifying ",
         r'verifying .*(?:Get|read) "https?://[^"]*/(?:sumdb|lookup|tile|latest)'),
    _row("sum.mismatch", "SECURITY ERROR", weak=True),
    # names
    _row("dns.not-found", "no such host|Could not resolve host: |Name or service not known|"
         "nodename nor servname provided|No address associated with hostname|getaddrinfow: "),
    _row("net.unreachable", "lookup ", r"lookup \S+ on \S+: .*(?:network is unreachable|no route to host)"),
    _row("dns.timeout", "lookup ", r"lookup \S+(?: on \S+)?: .*(?:i/o timeout|deadline exceeded)"),
    _row("dns.timeout", "emporary failure in name resolution|Resolving timed out"),
    _row("dns.refused", "lookup ",
         r"lookup \S+(?: on \S+)?: .*(?:server misbehaving|refused|no answer|unmarshal)"),
    # connections
    _row("vcs.ssh-refused", "ssh: connect to host",
         r"ssh: connect to host (?P<host>\S+) port (?P<port>\d+): "),
    _row("vcs.port-blocked", "errno=", r"^\S+\[\d+: .*\]: errno="),
    _row("tcp.refused", "connection refused|actively refused"),
    _row("tcp.timeout", "dial tcp",
         r"dial tcp .*(?:i/o timeout|timed out|deadline exceeded|did not properly respond)"),
    _row("net.unreachable", "network is unreachable|no route to host|unreachable network|unreachable host|"
         "cannot assign requested address"),
    _row("tcp.reset", "connection reset by peer|Recv failure: |Send failure: |broken pipe|forcibly closed|"
         "Connection was reset|connection aborted|SSL_ERROR_SYSCALL|GnuTLS recv error"),
    _row("tcp.timeout", "Failed to connect to ",
         r"Failed to connect to .* (?:after \d{5,} ms|.*timed? ?out)"),
    _row("tcp.timeout", "Connection timed out after|Connection timeout after"),
    _row("net.unreachable", "Failed to connect to ", r"Failed to connect to .*unreachable"),
    _row("tcp.refused", "Failed to connect to "),
    # TLS
    _row("tls.wrong-name", "x509: ", r"x509: (?:.*is valid for .*, not |cannot validate certificate for|"
         r".*not valid for any names|certificate is not valid for|certificate relies on legacy)"),
    _row("tls.clock-skew", "is not yet valid",
         r"not yet valid: current time .* is before|certificate is not yet valid"),
    _row("tls.expired", "certificate has expired"),
    _row("tls.intercepted", "x509: |certificate verification failed|certificate problem: |"
         "unable to get local issuer|self-signed certificate|self signed certificate|remote error: tls: "),
    _row("tls.wrong-name", "does not match target host name|alternative certificate subject name"),
    _row("tls.timeout", "TLS handshake timeout|SSL connection timeout|SSL connection timed out"),
    _row("tls.not-tls", "HTTP response to HTTPS client|first record does not look like|wrong version number|"
         "unexpected TLS packet"),
    # HTTP: go, then git's curl
    _row("http.timeout", "fetch timed out|timeout awaiting response headers|Operation timed out after|"
         "Operation too slow"),
    _row("http.server-error", "reading http",
         r"reading (?P<url>https?://\S+): (?P<status>\d{3})\b", by=_HTTP),
    _row("http.server-error", "returned error: |RPC failed; HTTP ",
         r"(?:returned error:|RPC failed; HTTP) (?P<status>\d{3})", by=_HTTP),
    _row("hop.stalled", "context deadline exceeded|Client.Timeout exceeded"),
    _row("http.timeout", "i/o timeout"),
    # a proxy's phrase for a refused CONNECT: go's own errors begin in lower case, but for EOF and URLs
    _row("proxy.bad-gateway", 'Get "http|Head "http|Post "http',
         r'(?:Get|Head|Post) "(?P<url>https?://[^"]+)": (?P<status>(?!EOF)[A-Z][A-Za-z -]+)$', by=_CONNECT),
    # no end, or a way that go doesn't follow
    _row("http.endless", "headers exceeded |zip file too large| redirects",
         r"response headers exceeded \d+|downloaded zip file too large|stopped after \d+ redirects|"
         r"Maximum \(\d+\) redirects followed"),
    _row("http.captive-portal", "redirected from secure URL "),
    # bodies
    _row("http.truncated", "unexpected EOF|: EOF|stream error: |server sent GOAWAY|client connection lost|"
         "connection broken|idle connection|RPC failed; curl|Empty reply from server|transfer closed with|"
         "unexpected disconnect|non-properly terminated|HTTP/2 stream "),
    _row("http.captive-portal", "invalid character '<'|missing module line"),
    _row("module.bad-zip", "zip: |zip for ", r"zip: (?:not a valid|checksum|unsupported)|zip for \S+ has "),
    # vcs
    _row("vcs.missing", "xecutable file not found|command not found",
         r'(?:exec: "|: )(?:git|hg|svn|fossil|bzr)"?: (?:executable file|command) not found'),
    _row("go.missing", "xecutable file not found|command not found",
         r'(?:exec: "|: )go"?: (?:executable file|command)'),
    # dash, busybox, make
    _row("go.missing", ": go: ", r"^\S+: (?:(?:line )?\d+: )?go: (?:not found|No such file)"),
    _row("vcs.missing", ": git: ", r"^\S+: (?:(?:line )?\d+: )?git: (?:not found|No such file)"),
    _row("build.failed", "xecutable file not found", r'(?:exec: |C compiler )"(?:gcc|clang|cc|g\+\+)'),
    _row("vcs.denied", "GOVCS disallows|remote: Permission to |insufficient permission"),
    _row("vcs.credentials", "could not read Username|could not read Password|terminal prompts disabled|"
         "Authentication failed for|Invalid username or|Access denied"),
    _row("ssh.host-key-changed", "HOST IDENTIFICATION HAS CHANGED"),
    _row("ssh.host-key-changed", "has changed and you have requested", weak=True),
    _row("ssh.host-key-unknown", "host key is known for", r"No \S+ host key is known for (?P<host>\S+)"),
    _row("ssh.host-key-unknown", "Host key verification failed", weak=True),
    _row("ssh.key-unusable", "UNPROTECTED PRIVATE KEY FILE|error in libcrypto"),
    _row("ssh.key-unusable", "Load key ", r'Load key "(?P<path>[^"]+)": (?!No such file)'),
    _row("ssh.auth-failed", "Permission denied (|Too many authentication failures", weak=False),
    _row("ssh.forwarding-denied", "administratively prohibited"),
    _row("ssh.handshake", "no matching ", r"Unable to negotiate with .*no matching"),
    _row("vcs.ssh-refused", "_exchange_identification: |onnection timed out during banner exchange"),
    _row("vcs.ssh-refused", " port ", r"Connection (?:closed|reset) by .* port \d+$", weak=True),
    _row("import.no-meta", "no go-import meta tags|does not begin with hostname|did not match import path"),
    _row("http.truncated", "early EOF|hung up unexpectedly|index-pack failed", weak=True),
    # settings
    _row("goproxy.off", "disabled by GOPROXY=off"),
    _row("goproxy.malformed", "GOPROXY list |invalid proxy URL|pass credentials to insecure"),
    _row("gotoolchain.unavailable", "toolchain not available|invalid GOTOOLCHAIN|invalid toolchain"),
    _row("gotoolchain.unavailable", "in PATH", r'cannot find "go[\d.]+\S*" in PATH'),
    _row("go.too-old", "requires go ", r"requires go >= (?P<version>\S+) \(running go "),
    _row("go111module.off", "disabled by GO111MODULE=off|GO111MODULE is set to off"),
    # local
    _row("replace.local", "replacement directory |replacement module without version"),
    _row("replace.local", "reading ", r"\(replaced by .*\): reading .*: open .*: no such file"),
    _row("disk.full", "no space left on device|isk quota exceeded"),
    _row("cache.permission", "could not create module cache|dubious ownership|build cache is "),
    _row("cache.permission", "ermission denied|read-only file system|peration not permitted",
         r"(?:mkdir|open|create|rename|unlinkat|write|chmod|[sS]tat|link|remove) \S*: "
         r"(?:permission|read-only|operation)"),
    # modules
    _row("sum.missing", "missing go.sum entry|go.sum file is empty"),
    _row("modfile.invalid", "updates to go.mod needed|inconsistent vendoring|errors parsing go.|"
         "module declares its path as|go.mod file not found|malformed import path|malformed module path|"
         "go.mod has non-|go.mod has post-v|unknown directive: |cannot find main module|"
         "not a known dependency|conflicting replacements"),
    _row("module.not-found", "no required module provides|cannot find module providing|"
         "no matching versions for|unknown revision |is not in std|cannot find package|"
         "not contain package|epository not found|returned info for version"),
    # after "invalid version: git …: exit status 128:" git itself says what happened
    _row("module.not-found", "invalid version: ", r"invalid version: (?!(?:git|hg|svn|fossil|bzr) )"),
    _row("module.not-found", "not found",
         r"repository '[^']+' not found|: module \S+: not found|^\s*not found: \S+@v"),
    # the compiler, the linker, vet
    _row("build.failed", ".go:", r"^(?:vet: )?[^\s:]+\.go:\d+:\d+: "),
    _row("build.failed", "[build failed]|build constraints exclude all|import cycle not allowed|"
         "/link: |undefined reference to|duplicate symbol"),
    _row("build.failed", "relocation target ", r"relocation target \S+ not defined"),
)  # fmt: skip

KEYWORDS: tuple[bytes, ...] = tuple(
    sorted({key for row in PATTERNS for key in row.keys} | {b"gotunnel: ", b"server response:"})
)
"""All that the prefilter looks for."""
