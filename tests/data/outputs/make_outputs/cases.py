# ruff: noqa: E501 - a table: one case on one line
"""The cases: the finding and whether a repeat is right, as a person judges it, never as our code says."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.data.outputs.make_outputs import world

TIDY = "go mod tidy"
GO_MOD = "module example.com/app\n\ngo 1.24\n\nrequire lab.example/a v1.0.0\n"
MAIN = 'package main\n\nimport "lab.example/a"\n\nfunc main() { println(a.A) }\n'
TEST = 'package main\n\nimport ("testing"; "lab.example/a")\n\nfunc TestA(t *testing.T) { t.Fatal(a.A) }\n'
OK_TEST = 'package ok\n\nimport "testing"\n\nfunc TestOK(t *testing.T) {}\n'
RUNS_GO = """package main

import ("os"; "os/exec")

func main() {
	c := exec.Command("GO", "mod", "download", "lab.example/a@v1.0.0")
	c.Stderr = os.Stderr
	if c.Run() != nil {
		os.Exit(1)
	}
}
"""
TRUE_SUM = world.go_sum()
FALSE_SUM = re.sub(r"h1:....", "h1:AAAA", TRUE_SUM)


class Case(NamedTuple):
    """One output to make; `env` is added to the base, `files` replace those of the project."""

    finding: str
    what: str
    retry: str
    argv: str = TIDY
    env: dict[str, str] = {}  # noqa: RUF012 - never changed
    files: dict[str, str | None] = {}  # noqa: RUF012


def source(name: str, **more: str) -> dict[str, str]:
    """Environment with the GOPROXY at `name`.lab.example."""
    return {"GOPROXY": f"https://{name}.lab.example", **more}


def via_proxy(
    name: str, scheme: str = "http", port: int = 3128, address: str = world.PROXY
) -> dict[str, str]:
    """Environment with an upstream proxy, asked for `name`.lab.example."""
    return source(name, HTTPS_PROXY=f"{scheme}://{address}:{port}")


DIRECT = {"GOPROXY": "direct"}
GITHUB: dict[str, str | None] = {"go.mod": GO_MOD.replace("lab.example/a", "github.com/lab/a"),
          "main.go": MAIN.replace("lab.example/a", "github.com/lab/a")}  # fmt: skip


def ssh_git(host: str, options: str = "") -> dict[str, str]:
    """Environment in which git takes github.com by ssh from `host`."""
    return {
        **DIRECT,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.ssh://git@{host}.lab.example/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
        # the first value of an option counts; ssh takes the home directory from passwd, not from HOME
        "GIT_SSH_COMMAND": f"ssh -F none -o BatchMode=yes -o ConnectTimeout=3 {options} "
        "-o UserKnownHostsFile=/dev/null -o IdentityFile=none -o IdentityAgent=none",
    }


CASES = [
    Case("goproxy.off", "tidy", "no", env={"GOPROXY": "off"}),
    Case("goproxy.malformed", "only-commas", "no", env={"GOPROXY": ","}),
    Case("goproxy.malformed", "scheme", "no", env={"GOPROXY": "ftp://proxy.lab.example"}),
    Case("goproxy.malformed", "password-in-clear", "no", env={"GOPROXY": "http://u:p@ok.lab.example"}),
    Case("gosumdb.off", "invalid", "no", env={**source("ok"), "GOSUMDB": "sum.lab.example+x"}),
    Case("gosumdb.unreachable", "refused", "yes", env={**source("nosum"), "GOSUMDB": "sum.golang.org https://dead.lab.example"}),
    Case("gosumdb.unreachable", "by-source-503", "yes", env={**source("sum503"), "GOSUMDB": "sum.golang.org"}),
    Case("http.captive-portal", "sumdb", "yes", env={**source("sumhtml"), "GOSUMDB": "sum.golang.org"}),
    Case("sum.unverifiable", "private", "no", env={**source("ok"), "GOSUMDB": "sum.golang.org https://s404.lab.example"}),
    Case("gotoolchain.unavailable", "tidy", "no", env=source("s404", GOTOOLCHAIN="go1.99.9")),
    Case("gotoolchain.unavailable", "invalid", "no", env=source("ok", GOTOOLCHAIN="nonsense")),
    Case("tcp.refused", "toolchain", "yes", env=source("dead", GOTOOLCHAIN="go1.99.9")),
    Case("gotoolchain.unavailable", "go-mod", "no", env=source("s404", GOTOOLCHAIN="auto"),
         files={"go.mod": GO_MOD.replace("go 1.24", "go 1.99")}),
    Case("go.too-old", "go-mod", "no", env=source("ok"), files={"go.mod": GO_MOD.replace("go 1.24", "go 1.99")}),
    Case("dns.not-found", "tidy", "yes", env=source("nx")),
    Case("dns.not-found", "test-many", "no", "go test ./...", env=source("nx"), files={"go.sum": TRUE_SUM, "ok/ok_test.go": OK_TEST}),
    Case("dns.not-found", "test-graph", "yes", "go test ./...", env=source("nx"), files={"go.sum": TRUE_SUM, "go.mod": GO_MOD.replace("1.24", "1.16")}),
    Case("dns.not-found", "generate", "yes", "go generate ./...", env=source("nx"), files={"go.sum": TRUE_SUM, "go.mod": GO_MOD.replace("1.24", "1.16")}),
    Case("dns.not-found", "generate-ran", "no", "go generate ./...", env=source("nx"), files={"main.go": MAIN + "//go:generate go mod tidy\n"}),
    Case("dns.not-found", "run-ran", "no", "go run .", env=source("nx"), files={"go.mod": "module m\n\ngo 1.24\n", "main.go": RUNS_GO}),
    Case("dns.not-found", "test", "yes", "go test", env=source("nx"), files={"go.sum": TRUE_SUM}),
    Case("dns.not-found", "run", "yes", "go run .", env=source("nx"), files={"go.sum": TRUE_SUM}),
    Case("dns.not-found", "build", "yes", "go build ./...", env=source("nx"), files={"go.sum": TRUE_SUM}),
    Case("dns.not-found", "get", "yes", "go get lab.example/a@latest", env=source("nx")),
    Case("dns.not-found", "tidy-e", "yes", "go mod tidy -e", env=source("nx")),
    Case("dns.not-found", "download", "yes", "go mod download", env=source("nx")),
    Case("dns.not-found", "vendor", "yes", "go mod vendor", env=source("nx"), files={"go.sum": TRUE_SUM}),
    Case("dns.not-found", "list", "yes", "go list -m -u all", env=source("nx"), files={"go.sum": TRUE_SUM}),
    Case("dns.not-found", "install", "yes", "go install lab.example/a@v1.0.0", env=source("nx")),
    Case("dns.not-found", "C", "yes", "go -C . mod tidy", env=source("nx")),
    Case("dns.not-found", "x", "yes", "go mod tidy -x", env=source("nx")),
    Case("dns.not-found", "vet", "yes", "go vet ./...", env=source("nx"), files={"go.sum": TRUE_SUM}),
    Case("dns.refused", "servfail", "yes", env=source("servfail")),
    Case("dns.timeout", "silent", "yes", env=source("silent", RES_OPTIONS="")),
    Case("dns.not-found", "git", "yes", env={**ssh_git("nx")}, files=GITHUB),
    Case("dns.not-found", "git-https", "yes", "git ls-remote https://nx.lab.example/x"),
    Case("tcp.refused", "tidy", "yes", env=source("dead")),
    Case("tcp.refused", "git-https", "yes", "git ls-remote https://dead.lab.example/x"),
    Case("tcp.timeout", "tidy", "yes", env=source("black")),
    Case("net.unreachable", "network", "yes", env=source("nonet")),
    Case("net.unreachable", "host", "yes", env=source("nohost")),
    Case("tcp.reset", "client-hello", "yes", env=source("reset")),
    Case("tcp.reset", "body", "yes", env=source("resetbody")),
    Case("http.truncated", "client-hello-eof", "yes", env=source("close")),
    Case("http.truncated", "zip", "yes", env=source("truncated")),
    Case("http.truncated", "mod", "yes", "go mod download", env=source("truncmod")),
    Case("http.truncated", "h2-stream", "yes", env=source("h2")),
    Case("tls.timeout", "tidy", "yes", env=source("stall")),
    Case("tls.intercepted", "tidy", "yes", env=source("inspected")),
    Case("tls.intercepted", "git", "yes", "git ls-remote https://inspected.lab.example/x"),
    Case("tls.wrong-name", "tidy", "yes", env=source("wrongname")),
    Case("tls.wrong-name", "git", "yes", "git ls-remote https://wrongname.lab.example/x"),
    Case("tls.expired", "tidy", "yes", env=source("expired")),
    Case("tls.intercepted", "git-expired", "yes", "git ls-remote https://expired.lab.example/x"),
    Case("tls.not-tls", "tidy", "yes", env=source("plain")),
    Case("tls.not-tls", "git", "yes", "git ls-remote https://plain.lab.example/x"),
    Case("proxy-env.unreachable", "refused", "yes", env=via_proxy("ok", port=1)),
    Case("proxy-env.unreachable", "name", "yes", env=source("ok", HTTPS_PROXY="http://nx.lab.example:3128")),
    Case("proxy-env.unreachable", "socks", "yes", env=via_proxy("ok", "socks5", 1)),
    Case("proxy-env.unreachable", "git", "yes", "git ls-remote https://ok.lab.example/x", env=via_proxy("ok", port=1)),
    Case("proxy.not-a-proxy", "ssh-server", "yes", env=via_proxy("ok", port=22)),
    Case("proxy.not-a-proxy", "web-server", "yes", env=via_proxy("ok", port=80)),
    Case("proxy.not-a-proxy", "tls-to-plain", "yes", env=via_proxy("ok", "https", 22)),
    Case("proxy.not-a-proxy", "http-to-socks", "yes", env=via_proxy("ok", port=1081, address=world.SOCKS)),
    Case("proxy.denied", "403", "yes", env=via_proxy("connect-403-Forbidden")),
    Case("proxy.denied", "git", "yes", "git ls-remote https://connect-403-Forbidden.lab.example/x", env=via_proxy("x")),
    Case("proxy.auth-required", "407", "no", env=via_proxy("connect-407-Proxy-Authentication-Required")),
    Case("proxy.auth-required", "git", "no", "git ls-remote https://connect-407-No.lab.example/x", env=via_proxy("x")),
    Case("proxy.bad-gateway", "502", "yes", env=via_proxy("connect-502-Bad-Gateway")),
    Case("proxy.bad-gateway", "503", "yes", env=via_proxy("connect-503-Service-Unavailable")),
    Case("proxy.bad-gateway", "504", "yes", env=via_proxy("connect-504-Gateway-Timeout")),
    Case("proxy.bad-gateway", "git", "yes", "git ls-remote https://connect-502-Bad-Gateway.lab.example/x", env=via_proxy("x")),
    Case("http.truncated", "proxy-hangs-up", "yes", env=via_proxy("hangup")),
    Case("hop.stalled", "connect-unanswered", "yes", env=via_proxy("silent")),
    Case("ssh.host-key-changed", "our-phrase", "no", env=via_proxy("ours")),
    Case("proxy.bad-gateway", "our-phrase-git", "yes", "git ls-remote https://ours.lab.example/x", env=via_proxy("ours")),
    Case("ssh.auth-failed", "our-body", "no", env=source("ours")),
    Case("socks.denied", "general", "yes", env=via_proxy("ok", "socks5", 1081, world.SOCKS)),
    Case("socks.denied", "ruleset", "yes", env=via_proxy("ok", "socks5h", 1082, world.SOCKS)),
    Case("net.unreachable", "by-socks", "yes", env=via_proxy("ok", "socks5", 1083, world.SOCKS)),
    Case("net.unreachable", "host-by-socks", "yes", env=via_proxy("ok", "socks5", 1084, world.SOCKS)),
    Case("tcp.refused", "by-socks", "yes", env=via_proxy("ok", "socks5", 1085, world.SOCKS)),
    Case("tcp.timeout", "by-socks-ttl", "yes", env=via_proxy("ok", "socks5", 1086, world.SOCKS)),
    Case("socks.auth-failed", "password", "no", env=via_proxy("ok", "socks5://u:p@198.51.100.21:1334/?", 1)),
    Case("socks.auth-failed", "methods", "no", env=via_proxy("ok", "socks5", 1335, world.SOCKS)),
    Case("socks.denied", "git", "yes", "git ls-remote https://ok.lab.example/x", env=via_proxy("ok", "socks5h", 1082, world.SOCKS)),
    Case("http.unauthorized", "401", "no", env=source("s401")),
    Case("http.forbidden", "403", "yes", env=source("s403")),
    Case("http.forbidden", "451", "yes", env=source("s451")),
    Case("http.rate-limited", "429", "yes", env=source("s429")),
    Case("http.server-error", "500", "yes", env=source("s500")),
    Case("http.server-error", "502", "yes", env=source("s502")),
    Case("http.server-error", "503", "yes", env=source("s503")),
    Case("http.server-error", "504", "yes", env=source("s504")),
    Case("http.server-error", "download-json", "yes", "go mod download -json", env=source("s503")),
    Case("http.server-error", "git", "yes", "git ls-remote https://s503.lab.example/x"),
    Case("http.forbidden", "git", "yes", "git ls-remote https://s403.lab.example/x"),
    Case("module.not-found", "404", "no", env=source("s404")),
    Case("module.not-found", "410", "no", env=source("s410")),
    Case("http.timeout", "fetch-timed-out", "yes", env=source("s404-not-found-fetch-timed-out")),
    Case("module.not-found", "get", "no", "go get lab.example/b@v1.2.3", env=source("ok")),
    Case("module.not-found", "build-not-required", "no", "go build ./...", env=source("ok"), files={"go.mod": "module m\n\ngo 1.24\n"}),
    Case("module.not-found", "git", "no", "git ls-remote https://s404.lab.example/x"),
    Case("module.bad-zip", "portal", "yes", env=source("portal")),
    Case("http.captive-portal", "get-latest", "yes", "go get lab.example/a@latest", env=source("portal"), files={"go.mod": "module m\n\ngo 1.24\n"}),
    Case("http.captive-portal", "get-branch", "yes", "go get lab.example/a@main", env=source("portal"), files={"go.mod": "module m\n\ngo 1.24\n"}),
    Case("module.bad-zip", "html", "yes", env=source("portalzip")),
    Case("module.bad-zip", "half", "yes", env=source("halfzip")),
    Case("modfile.invalid", "ours", "no", env=source("ok"), files={"go.mod": "nonsense here\n"}),
    Case("http.captive-portal", "no-module-line", "yes", env=source("badmod")),
    Case("modfile.invalid", "no-go-mod", "no", files={"go.mod": None}),
    Case("sum.mismatch", "zip", "once", env=source("tampered"), files={"go.sum": TRUE_SUM}),
    Case("sum.mismatch", "mod", "once", env=source("ok"), files={"go.sum": FALSE_SUM}),
    Case("sum.mismatch", "test", "once", "go test ./...", env=source("tampered"), files={"go.sum": TRUE_SUM}),
    Case("sum.missing", "build", "no", "go build ./...", env=source("ok")),
    Case("sum.missing", "readonly", "no", "go build -mod=readonly ./...", env=source("ok"), files={"go.sum": TRUE_SUM.split("\n")[1] + "\n"}),
    Case("sum.missing", "list", "no", "go list -m all", env=source("ok", GOFLAGS="-mod=readonly"), files={"go.mod": GO_MOD.replace("v1.0.0", "main")}),
    Case("replace.local", "tidy", "no", env=source("ok"), files={"go.mod": GO_MOD + "\nreplace lab.example/a => ../gone\n"}),
    Case("import.no-meta", "html", "no", env=DIRECT, files={"go.mod": GO_MOD.replace("lab.example/a", "nometa.lab.example/a")}),
    Case("dns.not-found", "discovery", "yes", env=DIRECT, files={"go.mod": GO_MOD.replace("lab.example/a", "nx.lab.example/a")}),
    Case("http.server-error", "discovery", "yes", env=DIRECT, files={"go.mod": GO_MOD.replace("lab.example/a", "s503.lab.example/a")}),
    Case("vcs.credentials", "https", "no", env=DIRECT, files=GITHUB),
    Case("vcs.missing", "git", "no", env={**DIRECT, "PATH": "/nowhere"}, files=GITHUB),
    Case("vcs.denied", "govcs", "no", env={**DIRECT, "GOVCS": "*:off"}, files=GITHUB),
    Case("vcs.ssh-refused", "refused", "yes", env=ssh_git("dead"), files=GITHUB),
    Case("vcs.ssh-refused", "timeout", "yes", env=ssh_git("black"), files=GITHUB),
    Case("vcs.ssh-refused", "no-banner", "yes", env=ssh_git("close"), files=GITHUB),
    Case("ssh.host-key-unknown", "git", "no", env=ssh_git("sshd", "-o StrictHostKeyChecking=yes"), files=GITHUB),
    Case("ssh.host-key-changed", "git", "no", env=ssh_git("sshd", "-o UserKnownHostsFile=$WORK/changed"), files=GITHUB),
    Case("ssh.auth-failed", "git", "no", env=ssh_git("sshd", "-o StrictHostKeyChecking=no"), files=GITHUB),
    Case("build.failed", "compile", "no", "go build ./...", env=source("ok"), files={"go.sum": TRUE_SUM, "main.go": MAIN.replace("a.A", "a.B")}),
    Case("build.failed", "syntax", "no", "go build ./...", env=source("ok"), files={"go.sum": TRUE_SUM, "main.go": MAIN.replace("{", "")}),
    Case("build.failed", "vet", "no", "go vet ./...", env=source("ok"), files={"go.sum": TRUE_SUM, "main.go": MAIN.replace("a.A", "a.B")}),
    Case("none", "run-exits-3", "no", "go run .", env=source("ok"), files={"go.sum": TRUE_SUM, "main.go": MAIN.replace("println(a.A)", 'panic(a.A)')}),
    Case("none", "test-fails", "no", "go test ./...", env=source("ok"), files={"go.sum": TRUE_SUM, "main_test.go": TEST}),
    Case("none", "tidy-good", "no", env=source("ok")),
    Case("cache.permission", "modcache", "no", env=source("ok", GOMODCACHE="/proc/nothere")),
    Case("cache.permission", "read-only", "no", env=source("ok", GOMODCACHE="$WORK/ro/cache")),
    Case("disk.full", "modcache", "no", env=source("ok", GOMODCACHE="$WORK/full/cache")),
    Case("go111module.off", "tidy", "no", env=source("ok", GO111MODULE="off")),
    Case("tls.clock-skew", "tidy", "no", env=source("future")),
    Case("hop.closed", "git", "yes", "git ls-remote https://hangup.lab.example/x", env=via_proxy("hangup")),
    Case("vcs.port-blocked", "git", "yes", "git ls-remote git://dead.lab.example/x"),
    Case("ssh.key-unusable", "git", "no", env=ssh_git("sshd", "-o StrictHostKeyChecking=no -o IdentityFile=$WORK/ca.pem"), files=GITHUB),
    Case("ssh.handshake", "git", "yes", env=ssh_git("sshd", "-o KexAlgorithms=diffie-hellman-group1-sha1"), files=GITHUB),
    Case("ssh.forwarding-denied", "git", "yes", env={**ssh_git("sshd"), "GIT_SSH_COMMAND": "ssh -F $WORK/ssh_config"}, files=GITHUB),
    Case("http.endless", "head", "yes", env=source("endless")),
    Case("http.endless", "zip", "yes", env=source("huge")),
    Case("http.endless", "redirects", "yes", env=source("loop")),
    Case("http.endless", "redirects-git", "yes", "git ls-remote https://loop.lab.example/x"),
    Case("http.captive-portal", "downgrade", "yes", env=source("downgrade")),
    Case("go.missing", "sh", "no", "/bin/sh -c go", env={"PATH": "/nowhere"}),
    Case("build.failed", "link", "no", "go build ./...", env=source("ok"), files={"go.sum": TRUE_SUM, "main.go": MAIN.replace("println", "gone").replace("func main", "func gone(int)\n\nfunc main"), "gone.s": ""}),
    Case("none", "x-next-source", "no", "go mod tidy -x", env={"GOPROXY": "https://dead.lab.example|https://ok.lab.example"}),
    Case("dns.not-found", "x-v-git", "yes", "go get -x -v nx.lab.example/a@v1.0.0", env=DIRECT, files={"go.mod": "module m\n\ngo 1.24\n", "main.go": None}),
    Case("vcs.credentials", "x-git", "no", "go get -x github.com/lab/a@v1.0.0", env=DIRECT, files={"go.mod": "module m\n\ngo 1.24\n", "main.go": None}),
    Case("go111module.off", "get", "no", "go get lab.example/a@v1.0.0", env=source("ok", GO111MODULE="off")),
]  # fmt: skip
