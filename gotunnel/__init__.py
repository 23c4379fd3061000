"""gotunnel makes Go modules work on any network.

One idea carries everything: a `Dialer` turns a target (host:port) into a `Stream`
(`upstream/dialer.py`).  Direct TCP, an HTTP proxy, a SOCKS proxy, an SSH jump host, a chain of
these and a pool of alternates are all dialers; who holds one needs not know which.

A connection:  accept -> parse -> authenticate -> pool picks candidates -> chain dials -> relay.

    cli/          one short file per command            demo/   a failover on one machine
    assemble/     the only place where configuration becomes objects
    config/       the table of keys, and where each value came from
    child/        runs CMD, reads what failed, decides on a repeat, leaves nothing behind
    listener/     the local endpoint: HTTP CONNECT, absolute-form and SOCKS5, with a secret, within limits
    goenv.py      what the go command is told; how its own settings are read
    probe.py      times each phase of a request over each way out
    doctor/       looks at settings, names, ports, certificates, answers, and judges: the root cause first
    findings/     the catalogue of everything that can be wrong, and the patterns that tell it
    route.py      target -> dialer: the pool, another one, direct, reject
    pool/         breaker, order and hedge (pure), probes, and the pool, itself a dialer
    upstream/     the hop kinds and their fold into a chain
    relay/        two streams become one, with half-close and bounded buffers
    wire/         protocol state without sockets
    storage/      where module files are kept: a directory, a bucket
    modproxy/     the module proxy: sources, fetch, resume, checksums, prefetch, bundles
    daemon/       what the background service is beside its engine
    observe/      events, logs, metrics, alerts, the last hour
    errors.py  address.py  pattern.py  tasks.py  openfiles.py  dataclass.py   the ground floor

Imports go downwards only: cli -> daemon -> assemble -> {listener, modproxy, child, doctor} -> route -> pool
-> upstream -> wire -> ground floor.  Nothing below `assemble` imports `config`; `tests/test_imports.py` holds
this.
"""

__version__ = "0.1.0"
