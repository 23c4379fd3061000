"""The background service: what `gotunnel serve` is beside its engine.

notify      sd_notify(3): READY, STATUS, WATCHDOG, RELOADING, STOPPING
activation  sockets that systemd holds for us: sd_listen_fds(3)
state       what is kept over restarts, and where a running service is found
"""
