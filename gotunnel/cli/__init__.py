"""The command line: one short file per command.

main      parser, dispatch, errors -> one line and an exit status
run       `gotunnel run`            connect   `gotunnel connect`
config    `gotunnel config`         demo      `gotunnel demo`
options   the options that say which ways out, shared by commands
console   what a person is told: one line a thing, on standard error
"""
