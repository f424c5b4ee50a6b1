"""Certificate authorities: the rules for a ``ca_file``, and the TLS context that trusts it beside the system's own.

Owns the reading of such files, for checks of the configuration, calls of a provider, and connections to the database.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from pathlib import Path

from headgate.process import locate

MAX_BYTES = 16 << 20
_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")
_OTHER = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")


def problem(path: Path | str) -> str | None:
    """Return the reason why the file cannot be used, to be read after its name; None if it can."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe would wait for its writer
            return "is no file"
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if len(content) > MAX_BYTES:
        return f"is larger than {MAX_BYTES >> 20} MB"
    return _shape(content) or _sound(path)


def _shape(content: bytes) -> str | None:
    if not content.strip():
        return "is empty"
    if content[:1] == b"\x30" and content[1:2] >= b"\x80":  # an ASN.1 sequence with a long length
        return "is in binary (DER) form: openssl x509 -inform der -in FILE -out ca.pem makes PEM of it"
    if _CERTIFICATE.search(content):
        return None
    other = _OTHER.search(content)
    if other is None:
        return "holds no certificate: PEM begins with -----BEGIN CERTIFICATE-----"
    what = other[1].decode().lower()
    return f"holds a {what} and no certificate" + (": never share that file" if "private key" in what else "")


def _sound(path: Path | str) -> str | None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (OSError, ValueError):
        return "holds a certificate that cannot be read"
    return None


def context(ca_file: str | None) -> ssl.SSLContext:
    """Return a context for servers whose certificate comes from the system's authorities, or from ``ca_file``'s.

    Takes some milliseconds.  Raises OSError (ssl.SSLError is one).
    """
    made = ssl.create_default_context()
    if ca_file is not None:
        made.load_verify_locations(ca_file)
    return made


def stamp(ca_file: str | None) -> locate.Stamp:
    """Return the values that differ when the authorities do: of the file, or of the system's bundle.  None without
    either.
    """
    return locate.stamp(ca_file or ssl.get_default_verify_paths().cafile)
