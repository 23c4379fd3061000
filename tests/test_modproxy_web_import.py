"""aiohttp is imported without this machine's certificates, and nobody else goes without them."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import ssl, threading
from gotunnel.modproxy import web_import

original, asked = ssl.create_default_context, []

def create(*args, **options):
    asked.append(threading.current_thread())
    return original(*args, **options)

ssl.create_default_context = create
with web_import._no_certificates():
    inside = ssl.create_default_context()
    other = threading.Thread(target=ssl.create_default_context)
    other.start()
    other.join()
assert asked == [other]
assert (inside.verify_mode, inside.check_hostname) == (ssl.CERT_REQUIRED, True)
assert not inside.cert_store_stats()["x509_ca"]
web_import.import_web()
assert asked == [other]
assert ssl.create_default_context is create
"""


def test_only_the_import_goes_without_certificates() -> None:
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
