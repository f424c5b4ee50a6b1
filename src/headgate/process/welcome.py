"""The text of a first start, with or without its tokens.

Owns the words that ``serve`` prints and ``headgate welcome`` shows.  It puts no token into a log that is kept: a
container's, systemd's journal.  There the agent token waits in the state directory until it was shown once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

KEPT_LOG = "HEADGATE_LOG_IS_KEPT"  # set in the container image
FIRST_TOKEN = "first.token"  # of the state directory, 0600, until ``headgate welcome`` has shown it
SHOW = "headgate welcome"


def log_is_kept(environ: Mapping[str, str], descriptor: int) -> bool:
    """True if the output to ``descriptor`` (standard output) is stored for longer than a terminal shows it."""
    if environ.get(KEPT_LOG):
        return True
    try:
        if os.isatty(descriptor):
            return False
        found = os.fstat(descriptor)
    except OSError:
        return False
    # systemd.exec(5): device and inode of the journal's socket; a child with another output inherits the variable
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def text(data_url: str, admin: str, agent: str, model: str) -> str:
    """The tokens and a line to paste."""
    return tokens(admin, agent) + trial(data_url, agent, model)


def tokens(admin: str, agent: str) -> str:
    return f"""
Headgate is ready. These are shown once:

  admin token   {admin}
  agent token   {agent}

"""


def trial(data_url: str, agent: str, model: str) -> str:
    return f"Try it:\n\n{curl(data_url, agent, model)}\n"


def without_tokens(command: str = SHOW) -> str:
    return f"""
Headgate is ready. Its tokens are not written to this log. To see them, and a line to try it with:

  {command}
"""


def curl(data_url: str, agent: str, model: str) -> str:
    """A request that streams at once."""
    return f"""curl -N {data_url}/v1/chat/completions \\
  -H "Authorization: Bearer {agent}" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}'"""
