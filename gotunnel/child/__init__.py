"""CMD: started, signalled, watched, and cleaned up after.

    gotunnel ── spare ── keeper ── CMD ── whatever it starts
      signals.py   gotunnel's side of signals: notes them, passes each on
      run.py       Child, gotunnel's handle: start, wait, terminate
      tee.py       CMD's standard error: passed on as it comes, and read
      keeper.py    the two small processes between gotunnel and CMD
      classify.py  what CMD's standard error says about its failure
      retry.py     whether to repeat CMD

The *keeper* starts CMD in gotunnel's own process group, so that terminal, pipeline and job control
are as they would be without us; it gets each signal of the group as gotunnel and CMD do, and
therefore knows which ones CMD has already.  It adopts every orphan of CMD (child subreaper), and
when CMD has ended, or the pipe from gotunnel closes because gotunnel died, it kills all that is
left.  The *spare* is its parent in a session of its own, out of reach of signals to the group; it
does the same when the keeper is killed.  Whoever kills both of them leaves gotunnel, which adopts
and kills what carries this run's id (`run.py`).
"""
