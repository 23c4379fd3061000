"""The ways out: every hop kind is a dialer, a chain is a fold of them.

dialer      the interface: Dialer.dial(target) -> Stream
spec        CHAIN text -> frozen hop specifications
chain       specifications -> dialers, sharing hops
direct      this machine's network            connect   HTTP CONNECT proxies
socks       SOCKS4, 4a, 5, 5h                  ssh       jump hosts, by asyncssh
  ssh_plan    a hop as typed + ssh_config -> plain values     ssh_config  the reader of ssh_config(5)
  ssh_keys    which keys are offered, in order                host_keys   known_hosts
  ssh_login   reach, shake hands, log in                      ssh_link    one connection and its ssh_watch
  ssh_errors  what the server said -> finding and blame       ssh_channel  asyncssh's channel, mended
  ssh_prompts what a person may be asked                      asking      who is asked, and waited for
  ssh_algorithms  lists of ssh_config, cut to what is known   masking      CHAINs as they may be shown
"""
