"""The nouns.  Frozen values that every package may hold; nothing here does anything.

Configuration as the data plane sees it (Provider, Alias, Grant, Snapshot), one call's values (Call, Target, Attempt,
Plan, Hold, Usage), and what is remembered of it (Opened, Progress, Closed, Refused).  They are msgspec structs
because they also travel: down the channel as MessagePack, up through the journal as MessagePack arrays.

Units: durations are seconds (float), instants are Unix nanoseconds (int) unless the name says otherwise,
prices are integer nano-USD per *million* tokens, costs integer nano-USD.
What there are thousands of travels without its default values (``omit_defaults``): half the bytes, half the time.
No value here ever holds a provider's key or a client's token: accounts are named, tokens are HMAC digests.
"""

from headgate.model.call import (
    NO_ALIAS,
    NO_OPTIONS,
    Attempt,
    Call,
    Candidate,
    Delivered,
    Hold,
    Options,
    Plan,
    Prompt,
    Target,
    Usage,
)
from headgate.model.config import (
    AUTO,
    CAPABILITIES,
    FEATURES,
    FREE,
    Account,
    Alias,
    DataBoot,
    DataSettings,
    Grant,
    Limits,
    ModelRow,
    Pool,
    Price,
    PriceTier,
    Provider,
    Snapshot,
    TargetRef,
    Timeouts,
)
from headgate.model.records import (
    AttemptRecord,
    Closed,
    Opened,
    Progress,
    Record,
    Refused,
    Rotated,
    Seam,
    Share,
)

__all__ = [
    "AUTO",
    "CAPABILITIES",
    "FEATURES",
    "FREE",
    "NO_ALIAS",
    "NO_OPTIONS",
    "Account",
    "Alias",
    "Attempt",
    "AttemptRecord",
    "Call",
    "Candidate",
    "Closed",
    "DataBoot",
    "DataSettings",
    "Delivered",
    "Grant",
    "Hold",
    "Limits",
    "ModelRow",
    "Opened",
    "Options",
    "Plan",
    "Pool",
    "Price",
    "PriceTier",
    "Progress",
    "Prompt",
    "Provider",
    "Record",
    "Refused",
    "Rotated",
    "Seam",
    "Share",
    "Snapshot",
    "Target",
    "TargetRef",
    "Timeouts",
    "Usage",
]
