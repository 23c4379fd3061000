"""The bench: gotunnel and its rivals in turn, on the same link, in one go.

    python -m tests.bench [NAME…] [--json] [--rounds N] [--size MIB] [--in-place]
    python -m tests.bench cold-download cold-tidy zips big-zip two-jumps [--rtt MS] [--loss %] [--rate MBIT]

    table.py   samples, medians, ratios, aims (pure), and the table
    load.py    the far end: speaks first, streams bytes, counts bytes
    world.py   the installed gotunnel, jump hosts, tunnels
    cases.py   what is measured on loopback
    wan.py     what is measured on a WAN line (root), with go itself; pull.py is its child

Rules:
- One round runs every contender of a case once, and each round begins with another one, so that a machine
  that is busy with something else slows all of them alike.  Medians are compared, never best times.
- What is measured is what a user has: an ordinary install with its bytecode compiled, real sshd, real ssh.
- A transfer counts only if all its bytes arrived.
"""
