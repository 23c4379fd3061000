"""`gotunnel demo`: a whole failover on one machine, with nothing but real parts.

    play.py     the acts: without gotunnel, with it (and a kill -9 on the way), build, run
    story.py    what a person sees of it: rich on a terminal, plain lines elsewhere
    stage.py    the private directory's content: modules, certificate, keys, servers, go's environment
    crew.py     the processes, each of which ends with the demo, however that ends
    guard.py    the process that sees to it, and removes the directory
    jump.py     one SSH jump host, a process of its own, so that kill -9 is a real one
    origin.py   the module origin: GOPROXY over TLS on Unix sockets, one for each jump host
    corpus.py   modules made on the spot, with their go.sum
    certs.py    a throw-away authority and its certificate
    gocmd.py    which go command to use

No port but the two jump hosts' on 127.0.0.1 is opened, and the origin has none at all: its name,
modules.demo.invalid, can be reached only through a jump host (go itself bypasses every proxy for loopback, so
a loopback origin would prove nothing).
"""
