"""The lab: real servers, real links and a real `go`, for tests and benches.

    proc.py       processes that the lab owns, and `Service`, the base of every server here
    guard.py      cleans up when the owner of a lab was killed before it could
    netns.py      network namespaces, links, packet filters       (root, Linux)
    wan.py        a link with delay, loss and rate (wanlink.c)    (root, Linux, a C compiler)
    s3.py         versitygw (S3) and Azurite (Azure)
    sshd.py       OpenSSH servers       keys.py      client keys and an agent
    proxies.py    tinyproxy, microsocks silent.py    servers that misbehave
    pki.py        a throw-away CA       gotool.py    the go command and its environment
    corpus.py     a synthetic GOPROXY tree and a project that needs it
    origin.py     an https server of that tree       faults.py   what it can be told to do wrong
    ranges.py     its ranges and validators          dns.py      a name server with a query log
    gitserver.py  git over https and ssh
    topology.py   all of it put together: client | jump1, jump2, proxy | origin
    wanlab.py     the same for benches and kill tests: a WAN line to each jump host, nothing else

Rules:
- Nothing here touches the machine's own network: only loopback, and namespaces made here.
- Every server runs in a namespace (`place=`) or on a loopback address with a free port.
- Whatever is started is ended by its pid, and so are its children; `guard.py` sees to the rest.
- A part that does not come up raises `LabError` with what it logged.
"""
