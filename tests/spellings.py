"""The ways in which a text may stand in another one: what a search for a leaked secret looks for."""

from __future__ import annotations

import base64
import html
from urllib.parse import quote


def spellings(secret: str) -> dict[str, str]:
    """``secret`` by the name of a spelling.  Of base64: what is the same wherever it begins in a longer text."""
    raw = secret.encode()
    found = {
        "plain": secret,
        "lower": secret.lower(),
        "upper": secret.upper(),
        "url": quote(secret, safe=""),
        "url, small": quote(secret, safe="").lower(),
        "url, all": "".join(f"%{byte:02X}" for byte in raw),
        "url, all, small": "".join(f"%{byte:02x}" for byte in raw),
        "json": "".join(f"\\u{byte:04x}" for byte in raw),
        "json, capital": "".join(f"\\u{byte:04X}" for byte in raw),
        "json slashes": secret.replace("/", "\\/"),
        "html": html.escape(secret),
        "hex": raw.hex(),
        "hex, capital": raw.hex().upper(),
    }
    for encode, name in ((base64.b64encode, "base64"), (base64.urlsafe_b64encode, "base64url")):
        for shift in range(3):
            whole = encode(b"\0" * shift + raw).decode().rstrip("=")
            first = (0, 2, 3)[shift]
            last = len(whole) if (shift + len(raw)) % 3 == 0 else len(whole) - 1
            found[f"{name} {shift}"] = whole[first:last]
    return found


def leaks(secrets: dict[str, str], texts: dict[str, bytes]) -> list[tuple[str, str, str]]:
    """(where, which secret, in which spelling) of every secret that is in a text."""
    known = [
        (name, form, text.encode()) for name, secret in secrets.items() for form, text in spellings(secret).items()
    ]
    return sorted({(where, name, form) for where, text in texts.items() for name, form, word in known if word in text})
