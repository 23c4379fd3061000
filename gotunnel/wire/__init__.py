"""Protocol state without sockets: bytes in, decisions out.

http1   CONNECT as a client (a way out) and the heads of requests as a server (our endpoint), over h11
"""
