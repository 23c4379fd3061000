"""The local endpoint: what HTTPS_PROXY of the child points at.

proxy    accepts, reads one head, authenticates, dials, relays
forward  absolute-form requests (plain http:// URLs), one at a time
auth     the per-run secret
"""
