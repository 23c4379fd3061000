"""Where everything is in the world of the faults: names, addresses, modules."""

from __future__ import annotations

PLACES = {
    "proxy.golang.org": "8.34.0.10",
    "sum.golang.org": "8.34.0.11",
    "git.corp.example": "8.34.0.12",
    "code.corp.example": "8.34.0.13",
    "goproxy.cn": "8.34.0.14",
    "sum.lab.example": "8.34.0.15",
}
LIAR, HONEST = "8.34.0.53", "8.34.0.54"
DOH = {"cloudflare-dns.com": "1.1.1.1", "dns.google": "8.8.8.8", "dns.alidns.com": "223.5.5.5"}
HOPS = "10.77.0.2"
STRANGE = {
    "silent": "8.34.1.1",
    "sni": "8.34.1.2",
    "plain": "8.34.1.3",
    "intercepted": "8.34.1.4",
    "expired": "8.34.1.5",
    "wrong-name": "8.34.1.6",
    "clock": "8.34.1.7",
    "fat": "8.34.1.8",
    "login": "8.34.1.9",
    "empty": "8.34.1.10",  # nothing listens
    "cdn": "9.99.0.1",  # right, and in another network than the public resolvers say
    "hang": "8.34.1.11",
    "hotspot": "8.34.1.12",
    "clock-ahead": "8.34.1.13",
}
# addresses that the liar gives for public names
BLOCK_PAGE, PRIVATE, BOGON, OTHER = "146.112.61.106", "10.1.2.3", "203.0.113.7", "45.40.0.5"
# a source of the company's own, by a name that only its resolver knows, and by one that is another's outside
COMPANY = ("goproxy.company.com", "www.company.com")
USER, PASSWORD = "lab", "lab-password"
LIB = "git.corp.example/team/lib"
SSHLIB = "code.corp.example/team/sshlib.git"
GITLIB = "git.corp.example/team/gitlib"
LOGINLIB = "git.corp.example/team/secret"
VERSION = "v1.2.0"
