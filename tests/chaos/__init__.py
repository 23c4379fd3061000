"""Real `go` runs over jump hosts that die, lie and stall: `python -m tests.chaos --minutes 10 --seed 1`.

    script.py   what goes wrong and when, from a seed (pure)
    box.py      a box between the client and a jump host: slows the line, flips bytes
    names.py    a name server that lies when told to
    lab.py      three jump hosts, two mirrors, two name servers, a small disk
    actor.py    does to the lab what the script says
    subject.py  what is put to the test: `gotunnel run`, the same with a `serve`, and the rivals
    runs.py     one run: go, its files, its pauses
    report.py   the sums, and the table

Rules:
- At any moment one way out and one mirror are sound; each trouble has one victim, and an end.
- Host keys stay as they are: a changed one has to be refused, which is no matter of luck.
- A run succeeds if go did and every file in its module cache is right; a run that took longer than its time
  has failed.  The command exits with 0 only if every run succeeded.
- A pause is the longest time between two bytes on the loopback device of the client, where nothing but the
  child's own connections to its proxy is, looked at every 50 ms, from the first byte to the last.
"""
