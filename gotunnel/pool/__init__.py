"""The pool of alternates, itself a dialer.

breaker   closed, open, half-open (pure)        order   who is tried first (pure)
hedge     when a second one is tried (pure)     pool    dials by what these decide
"""
