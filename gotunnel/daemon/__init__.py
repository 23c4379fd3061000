"""The background service: what `gotunnel serve` is beside its engine.

service     start, ready, watchdog, reload, drain       runs        the runs that use it
notify      sd_notify(3)                                activation  sockets that systemd holds for us
state       what is kept over restarts, and where a running service is found
admin       the HTTP endpoint: health, metrics, page    admin_api   what it shows, and what `run` asks
page        the status page's files (static/)           explained   findings in words, for the page
observed    who listens to events                       webhook     alerts, signed
units       the systemd units
"""
