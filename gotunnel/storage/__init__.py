"""Where files of modules are kept: one interface, two kinds.

    open.py      a URL -> a store: file:///DIR, s3://BUCKET/PREFIX?…, gs://…, az://…
    store.py     `Store`, what each kind holds to: names, atomic puts, labels, errors
    disk.py      files in go's own layout below DIR, so that `GOPROXY=file://DIR` works too
    lock.py      between the processes that use one directory
    objects.py   an object store by obstore, for several machines over one bucket; object_setup.py sets it up

    DIR/github.com/!burnt!sushi/toml/@v/v1.0.0.zip                            the file, as go asks for it
    DIR/.gotunnel/labels/github.com/!burnt!sushi/toml/@v/v1.0.0.zip.json      what is known of it
    DIR/.gotunnel/spool/                                                      files that are being made
    DIR/.gotunnel/lock                                                        held while a name appears

A put:  a file in the spool -> synced -> under the lock: not there yet? -> its labels -> linked into place.
A get:  stat -> labels, if they are of this very file -> its time of use, once an hour.

In a bucket the labels are metadata of the object, an object is created with `If-None-Match: *`, and nobody
locks; a label that came later lies beside, under `.gotunnel/labels/`, and names the object it is of.

Who verified what is no business of this package: it keeps labels and never reads them.
"""

from gotunnel.storage.open import open_store
from gotunnel.storage.store import Store, Stored, StoreError, Vanished, read_all

__all__ = ["Store", "StoreError", "Stored", "Vanished", "open_store", "read_all"]
