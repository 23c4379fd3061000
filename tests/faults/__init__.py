"""The faults that `gotunnel doctor` must tell apart, each really made in namespaces.

- world.py, places.py: the client, the network it sees, the way stations; strange.py: servers that go wrong.
- case.py: what a case is; config.py, network.py, answers.py, ways.py, local.py: the cases.
- bench.py: makes a fault, asks doctor, does what it says; `python -m tests.faults` prints the table.
"""
