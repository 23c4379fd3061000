"""gotunnel makes Go modules work on any network.

One idea carries everything: a `Dialer` turns a target (host:port) into a `Stream`
(`upstream/dialer.py`).  Direct TCP, an HTTP proxy, a SOCKS proxy, an SSH jump host, a chain of
these and a pool of alternates are all dialers; who holds one needs not know which.

A connection:  accept -> parse -> authenticate -> pool picks candidates -> chain dials -> relay.

    cli/          one short file per command
    assemble.py   the only place where configuration becomes objects
    child/        runs CMD, reads what failed, decides on a repeat, leaves nothing behind
    listener/     the local endpoint: HTTP CONNECT and absolute-form, with a secret
    goenv.py      what the go command is told; how its own settings are read
    findings/     the catalogue of everything that can be wrong, and the patterns that tell it
    pool/         breaker and order (pure), and the pool, itself a dialer
    upstream/     the hop kinds and their fold into a chain
    relay/        two streams become one, with half-close and bounded buffers
    wire/         protocol state without sockets
    observe/      events
    errors.py  address.py  tasks.py   the ground floor

Imports go downwards only: cli -> assemble -> {listener, child} -> pool -> upstream -> wire -> ground
floor.  Nothing below `assemble` imports `config`; `tests/test_imports.py` holds this.
"""

__version__ = "0.1.0"
