"""The admin API's own rows of the error table; the others are ``headgate.errors``'.

``errors.GatewayError`` carries them: what changes stored objects raises it, and the API renders it once.
"""

from __future__ import annotations

from headgate.errors import Kind

_BAD, _AUTH, _GONE, _CLASH = "invalid_request_error", "authentication_error", "not_found_error", "conflict_error"

# fmt: off
INVALID_CONFIG      = Kind(400, _BAD, "invalid_config")
MISSING_ADMIN_TOKEN = Kind(401, _AUTH, "missing_admin_token")
INVALID_ADMIN_TOKEN = Kind(401, _AUTH, "invalid_admin_token")
INVALID_SESSION     = Kind(401, _AUTH, "invalid_session")
WRONG_LOGIN         = Kind(401, _AUTH, "wrong_login")
LOGIN_FAILED        = Kind(401, _AUTH, "login_failed")
FORBIDDEN           = Kind(403, _AUTH, "forbidden")
CSRF_FAILED         = Kind(403, _AUTH, "csrf_failed")
FOREIGN_ORIGIN      = Kind(403, _AUTH, "foreign_origin")
TOKEN_NOT_FOUND     = Kind(404, _GONE, "token_not_found")
PROVIDER_NOT_FOUND  = Kind(404, _GONE, "provider_not_found")
KEY_REFUSED         = Kind(400, _BAD, "key_refused")
ACCOUNT_NOT_FOUND   = Kind(404, _GONE, "account_not_found")
ALIAS_NOT_FOUND     = Kind(404, _GONE, "alias_not_found")
TENANT_NOT_FOUND    = Kind(404, _GONE, "tenant_not_found")
BUDGET_NOT_FOUND    = Kind(404, _GONE, "budget_not_found")
USER_NOT_FOUND      = Kind(404, _GONE, "user_not_found")
SESSION_NOT_FOUND   = Kind(404, _GONE, "session_not_found")
OIDC_NOT_CONFIGURED = Kind(404, _GONE, "oidc_not_configured")
MANAGED_BY_FILE     = Kind(409, _CLASH, "managed_by_file")
INVITE_NOT_FOUND    = Kind(404, _GONE, "invite_not_found")
WEBHOOK_NOT_FOUND   = Kind(404, _GONE, "webhook_not_found")
INVITE_OVER         = Kind(409, _CLASH, "invite_over")
NO_PUBLIC_URL       = Kind(409, _CLASH, "no_public_url")
ALREADY_EXISTS      = Kind(409, _CLASH, "already_exists")
NAME_TAKEN          = Kind(409, _CLASH, "name_taken")
AMBIGUOUS_NAME      = Kind(409, _CLASH, "ambiguous_name")
IN_USE              = Kind(409, _CLASH, "in_use")
TOO_MANY            = Kind(409, _CLASH, "too_many")
NOTHING_RUNS        = Kind(409, _CLASH, "nothing_runs")
NO_SESSION          = Kind(409, _CLASH, "no_session")
TOO_MANY_LOGINS     = Kind(429, "rate_limit_error", "too_many_logins")
# fmt: on
