"""The bench: gotunnel and its rivals in turn, on the same link, in one go.

    python -m tests.bench [NAME…] [--json] [--rounds N] [--size MIB] [--in-place]
    python -m tests.bench cold-download cold-tidy zips big-zip two-jumps [--rtt MS] [--loss %] [--rate MBIT]

    python -m tests.bench --install                       brings the rivals first
    python -m tests.bench cold-download --rtts 20,100,200,300 --plot cold.png

    table.py        samples, medians, ratios, aims (pure), and the table; plot.py draws it
    rivals.py       where the rivals are, their versions, how they are installed
    load.py         the far end: speaks first, streams bytes, counts bytes, holds
    many.py         the near end: thousands of connections from one epoll loop
    splicer.py      what the kernel can do, and an upstream proxy that costs next to nothing
    world.py        the installed gotunnel, jump hosts, tunnels
    contestants.py  gotunnel's `serve` and the rivals as local proxies
    cases.py        what is measured through jump hosts on loopback, and the list of all cases
    proxying.py     bulk through an upstream proxy, new connections, idle tunnels
    store.py        the module store under load
    growth.py       what one more costs
    wan.py          what is measured on a WAN line (root), with go itself; pull.py is its child

Rules:
- One round runs every contender of a case once, and each round begins with another one, so that a machine
  that is busy with something else slows all of them alike.  Medians are compared, never best times.
- What is measured is what a user has: an ordinary install with its bytecode compiled, real sshd, real ssh.
- A transfer counts only if all its bytes arrived.
"""
