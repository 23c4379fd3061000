"""The text level of OpenSSH's client configuration: words, keywords, values, tokens.  No files, no hosts.

Rules (ssh_config(5), and the behaviour of readconf.c and misc.c where the manual is silent):
- A line is `Keyword value…` or `Keyword=value…`; keywords in any case; `#` starts a comment where a word
  may start; words may stand in single or double quotes; a backslash escapes a quote, a backslash, a blank.
- A keyword's value becomes a tuple of strings in one normal form ("yes", "90", …); the empty tuple is a
  value that sets nothing (`ConnectTimeout none`).  A value is checked even where its block doesn't apply.
- Every complaint is a ValueError whose text is `what; what to do`; who knows file and line adds them.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from urllib.parse import unquote

from gotunnel.dataclass import dataclass

WHITESPACE = " \t\r\n"
_INT_MAX = 2**31 - 1
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def lower(text: str) -> str:
    """ASCII lower case only, as ssh does it: no other letter has two cases in a host name or keyword."""
    return text.encode("utf-8", "surrogateescape").lower().decode("utf-8", "surrogateescape")


def next_word(text: str | None) -> tuple[str | None, str | None]:
    """Cut the first word off: (word, rest).  It ends at a blank, at one `=`, or with its closing quote.

    The word is None at the end of the text and where a quote isn't closed.
    """
    found = re.search(r'[ \t\r\n"=]', text) if text is not None else None
    if text is None or found is None:
        return text, None
    at = found.start()
    if text[at] == '"':
        end = text.find('"', at + 1)
        if end < 0:
            return None, None
        return text[:at] + text[at + 1 : end], text[end + 1 :].lstrip(WHITESPACE)
    rest = text[at + 1 :].lstrip(WHITESPACE)
    if text[at] != "=" and rest.startswith("="):
        rest = rest[1:].lstrip(WHITESPACE)
    return text[:at], rest


def split_words(text: str) -> list[str]:
    """The words of a value, quotes and escapes undone, up to a comment; ValueError for an open quote."""
    words: list[str] = []
    at = 0
    while at < len(text):
        if text[at] in " \t":
            at += 1
            continue
        if text[at] == "#":
            break
        word, quote = "", ""
        while at < len(text) and (quote or text[at] not in " \t"):
            char = text[at]
            following = text[at + 1 : at + 2]
            if char == "\\" and following and (following in "'\"\\" or (following == " " and not quote)):
                word += following
                at += 1
            elif quote and char == quote:
                quote = ""
            elif not quote and char in "'\"":
                quote = char
            else:
                word += char
            at += 1
        if quote:
            raise ValueError(f"a quote is not closed; add the missing {quote}")
        words.append(word)
    return words


def _number(text: str, least: int, most: int) -> int | None:
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}", text, re.ASCII):
        return None
    return int(text) if least <= int(text) <= most else None


def port_number(text: str) -> int:
    """A port, 1 to 65535, from its number or its name in /etc/services; ValueError for others."""
    port = _number(text, 1, 65535)
    if port is None:
        try:
            port = socket.getservbyname(text, "tcp")
        except (OSError, UnicodeError):
            raise ValueError(f"{text!r} is no port; want 1 to 65535") from None
    return port


def _seconds(text: str) -> int:
    if not re.fullmatch(r"([0-9]{1,10}[smhdw])*([0-9]{1,10})?", text, re.ASCII | re.IGNORECASE) or not text:
        raise ValueError(f"{text!r} is no time; write it as 90, 90s or 1m30s")
    parts = re.findall(r"([0-9]+)([smhdw]?)", text, re.ASCII | re.IGNORECASE)
    total = sum(int(number) * _UNITS[unit.lower()] for number, unit in parts)
    if total > _INT_MAX:
        raise ValueError(f"{text!r} is too long a time; want at most {_INT_MAX} seconds")
    return total


# --- values: each takes (words, the value as it stands) and gives its normal form -------------------------

Parse = Callable[[list[str], str], tuple[str, ...]]


def _one(words: list[str]) -> str:
    if not words or not words[0]:
        raise ValueError("the value is missing; add one or remove the line")
    if len(words) > 1:
        raise ValueError(f"extra words after {words[0]!r}; put a value that has blanks in quotes")
    return words[0]


def _word(words: list[str], _rest: str) -> tuple[str, ...]:
    return (_one(words),)


def _choice(**forms: str) -> Parse:
    known = {key.replace("_", "-"): value for key, value in forms.items()}

    def parse(words: list[str], _rest: str) -> tuple[str, ...]:
        value = known.get(lower(_one(words)))
        if value is None:
            raise ValueError(f"{words[0]!r} is not allowed here; use one of {', '.join(known)}")
        return (value,)

    return parse


def _time(words: list[str], _rest: str) -> tuple[str, ...]:
    return () if _one(words) == "none" else (str(_seconds(words[0])),)


def _int(words: list[str], _rest: str) -> tuple[str, ...]:
    value = _number(_one(words), 0, _INT_MAX)
    if value is None:
        raise ValueError(f"{words[0]!r} is no whole number; want 0 to {_INT_MAX}")
    return (str(value),)


def _port(words: list[str], _rest: str) -> tuple[str, ...]:
    return (str(port_number(_one(words))),)


def _files(words: list[str], _rest: str) -> tuple[str, ...]:
    if not words or "" in words:
        raise ValueError("a file name is missing or empty; add it, or say none")
    if len(words) > 1 and any(lower(word) == "none" for word in words):
        raise ValueError("'none' must stand alone; remove it or the other files")
    if len(words) > 32:
        raise ValueError("more than 32 files; name fewer")
    return tuple(words)


def _command(_words: list[str], rest: str) -> tuple[str, ...]:
    command = rest.lstrip(WHITESPACE + "=")
    if not command:
        raise ValueError("the command is missing; add one or say none")
    return (command,)


def _any(words: list[str], rest: str) -> tuple[str, ...]:
    return tuple(words) or (rest,)


def _jump(words: list[str], rest: str) -> tuple[str, ...]:
    if len(words) == 1 and lower(words[0]) == "none":
        return ("none",)
    text = rest.lstrip(WHITESPACE + "=").partition("#")[0].rstrip(WHITESPACE)
    return (",".join(str(Hop.parse(element)) for element in text.split(",")),)


_yes_no = _choice(yes="yes", true="yes", no="no", false="no")
_yes_no_ask = _choice(yes="yes", true="yes", no="no", false="no", ask="ask")

_KINDS: dict[Parse, str] = {
    _yes_no: """BatchMode CheckHostIP ClearAllForwardings EnableEscapeCommandline EnableSSHKeysign
        ExitOnForwardFailure ForkAfterAuthentication ForwardX11 ForwardX11Trusted GatewayPorts
        GSSAPIAuthentication GSSAPIKeyExchange GSSAPIDelegateCredentials GSSAPITrustDns
        GSSAPIRenewalForcesRekey
        HashKnownHosts HostbasedAuthentication IdentitiesOnly KbdInteractiveAuthentication
        NoHostAuthenticationForLocalhost PasswordAuthentication PermitLocalCommand ProxyUseFdpass StdinNull
        StreamLocalBindUnlink TCPKeepAlive VisualHostKey CanonicalizeFallbackLocal WarnWeakCrypto
        UseKeychain""",
    _yes_no_ask: "VerifyHostKeyDNS UpdateHostKeys",
    _choice(yes="yes", true="yes", no="no", false="no", off="no", ask="ask", accept_new="accept-new"): (
        "StrictHostKeyChecking"
    ),
    _choice(yes="yes", no="no"): "Compression",
    _choice(any="any", inet="inet", inet6="inet6"): "AddressFamily",
    _choice(yes="yes", true="yes", no="no", false="no", unbound="yes", host_bound="yes"): (
        "PubkeyAuthentication"
    ),
    _choice(yes="yes", true="yes", no="no", false="no", always="always"): "CanonicalizeHostname",
    _choice(yes="yes", true="yes", no="no", false="no", auto="auto", ask="ask", autoask="autoask"): (
        "ControlMaster"
    ),
    _choice(
        yes="yes", true="yes", no="no", false="no", ethernet="ethernet", point_to_point="point-to-point"
    ): ("Tunnel"),
    _choice(yes="yes", true="yes", no="no", false="no", force="force", auto="auto"): "RequestTTY",
    _choice(none="none", subsystem="subsystem", default="default"): "SessionType",
    _time: "ConnectTimeout ForwardX11Timeout ServerAliveInterval",
    _int: """ConnectionAttempts ServerAliveCountMax NumberOfPasswordPrompts RequiredRSASize
        CanonicalizeMaxDots""",
    _word: """BindAddress BindInterface CertificateFile ControlPath ControlPersist DynamicForward ForwardAgent
        HostKeyAlias HostName IdentityAgent IdentityFile IgnoreUnknown KbdInteractiveDevices PKCS11Provider
        PreferredAuthentications RevokedHostKeys SecurityKeyProvider Tag TunnelDevice User XAuthLocation
        GSSAPIClientIdentity GSSAPIServerIdentity GSSAPIKexAlgorithms Ciphers MACs KexAlgorithms
        HostKeyAlgorithms PubkeyAcceptedAlgorithms CASignatureAlgorithms HostbasedAcceptedAlgorithms
        EscapeChar FingerprintHash LogLevel SyslogFacility StreamLocalBindMask""",
    _port: "Port",
    _files: "GlobalKnownHostsFile UserKnownHostsFile",
    _command: "ProxyCommand LocalCommand RemoteCommand KnownHostsCommand RefuseConnection VersionAddendum",
    _jump: "ProxyJump",
    _any: """Host Match Include AddKeysToAgent CanonicalDomains CanonicalizePermittedCNAMEs ChannelTimeout
        IPQoS LocalForward LogVerbose ObscureKeystrokeTiming PermitRemoteOpen RekeyLimit RemoteForward SendEnv
        SetEnv""",
}
_ALIASES = {
    "ChallengeResponseAuthentication": "KbdInteractiveAuthentication",
    "SKeyAuthentication": "KbdInteractiveAuthentication",
    "TISAuthentication": "KbdInteractiveAuthentication",
    "DSAAuthentication": "PubkeyAuthentication",
    "HostbasedKeyTypes": "HostbasedAcceptedAlgorithms",
    "HostbasedAcceptedKeyTypes": "HostbasedAcceptedAlgorithms",
    "IdentityFile2": "IdentityFile",
    "KeepAlive": "TCPKeepAlive",
    "ProtocolKeepAlives": "ServerAliveInterval",
    "PubkeyAcceptedKeyTypes": "PubkeyAcceptedAlgorithms",
    "RSAMinSize": "RequiredRSASize",
    "SetupTimeOut": "ServerAliveInterval",
    "SmartcardDevice": "PKCS11Provider",
}
# known to ssh as deprecated or unsupported: read over
_OBSOLETE = """Protocol Cipher FallBackToRsh GlobalKnownHostsFile2 RhostsAuthentication UseBlacklistedKeys
    UserKnownHostsFile2 UseRoaming UseRsh UseSh UsePrivilegedPort AFSTokenPassing KerberosAuthentication
    KerberosTGTPassing RSAAuthentication RhostsRSAAuthentication CompressionLevel"""


@dataclass(frozen=True, slots=True)
class Keyword:
    """A keyword of ssh_config(5): its canonical spelling ("" for an obsolete one) and its value's form."""

    name: str
    parse: Parse


def _table() -> dict[str, Keyword]:
    table = {name.lower(): Keyword(name, parse) for parse, names in _KINDS.items() for name in names.split()}
    table |= {alias.lower(): table[name.lower()] for alias, name in _ALIASES.items()}
    return table | {name.lower(): Keyword("", _any) for name in _OBSOLETE.split()}


KEYWORDS: Mapping[str, Keyword] = _table()


def sane_host(host: str) -> bool:
    """False for a name that a shell could misread: it may become %h in a command."""
    return not host.startswith("-") and all(c.isprintable() and c not in "'`\"$\\;&<>|(){}, " for c in host)


def sane_user(user: str) -> bool:
    """False for a login that a shell could misread; blanks and a domain's backslash are allowed."""
    return (
        not user.startswith("-")
        and not user.endswith("\\")
        and all(c.isprintable() and c not in "'`\";&<>|(){}" for c in user)
        and " -" not in user
    )


@dataclass(frozen=True, slots=True)
class Hop:
    """One element of ProxyJump: `[user@]host[:port]` or `ssh://[user@]host[:port]`; host without brackets."""

    user: str | None
    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Hop:
        """Raises ValueError where ssh would refuse the element."""
        wrong = ValueError(f"{text!r} is no jump host; write [user@]host[:port]")
        uri = text.startswith("ssh://")
        body = text.removeprefix("ssh://")
        login, at, address = body.partition("@") if uri else body.rpartition("@")
        if not at:
            login, address = "", body
        if at and not login:
            raise wrong
        if uri:
            login, address = unquote(login.partition(";")[0]), address.removesuffix("/")
        found = re.fullmatch(r"(?:\[(?P<v6>[^\]]+)\]|(?P<name>[^:/\[]+))(?::(?P<port>[^/]*))?", address)
        if found is None or not sane_host(found["v6"] or found["name"]) or not sane_user(login):
            raise wrong
        port = port_number(found["port"]) if found["port"] else None
        return cls(login or None, found["v6"] or found["name"], port)

    def __str__(self) -> str:
        login = f"{self.user}@" if self.user is not None else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{login}{host}" + (f":{self.port}" if self.port is not None else "")


# --- tokens -----------------------------------------------------------------------------------------------


def expand(text: str, tokens: Mapping[str, str], environ: Mapping[str, str] | None = None) -> str:
    """Replace `%x` by `tokens["x"]` and `%%` by `%`; with `environ` also `${NAME}`.

    Raises ValueError for a token that isn't among them, and for a variable that isn't set.
    """

    def replace(found: re.Match[str]) -> str:
        if (name := found["name"]) is not None:
            if environ is None:
                return found[0]
            if not name or "}" not in found[0]:
                raise ValueError(f"{text!r}: a variable is written ${{NAME}}; close the brace")
            if name not in environ:
                raise ValueError(f"{text!r}: ${{{name}}} is not set; set it or write the value here")
            return environ[name]
        key = found["key"]
        if key != "%" and (not key or key not in tokens):
            known = " ".join(f"%{token}" for token in ("%", *tokens))
            raise ValueError(f"{text!r}: no token %{key} here; use one of {known}")
        return "%" if key == "%" else tokens[key]

    return re.sub(r"\$\{(?P<name>[^}]*)\}?|%(?P<key>.?)", replace, text, flags=re.DOTALL)
