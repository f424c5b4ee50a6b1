"""Errors as providers, engines and gateways really word and shape them: what each one means, and what is told of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate import errors
from headgate.dialects.openai_chat import failure
from headgate.dialects.openai_chat.errors.failures import stream_failure
from headgate.errors import GatewayError, Kind

KEY, UNPAID, LIMITED = errors.UPSTREAM_AUTH, errors.UPSTREAM_UNPAID, errors.RATE_LIMITED
DENIED, BLOCKED, NO_MODEL = errors.UPSTREAM_MODEL_DENIED, errors.UPSTREAM_DENIED, errors.UPSTREAM_MODEL_NOT_FOUND
FILTERED, CONTEXT, REFUSED = errors.CONTENT_FILTER, errors.CONTEXT_LENGTH, errors.UPSTREAM_REFUSED
UNPROCESSABLE, LARGE, SPENT = errors.UPSTREAM_UNPROCESSABLE, errors.PAYLOAD_TOO_LARGE, errors.QUOTA_SPENT
BUSY, LATE, FAILED, EVENT = (
    errors.UPSTREAM_OVERLOADED, errors.UPSTREAM_TIMEOUT, errors.UPSTREAM_FAILED, errors.UPSTREAM_ERROR_EVENT,
)  # fmt: skip
GARBAGE, DEAR, OVER = errors.UPSTREAM_GARBAGE, errors.UNAFFORDABLE, errors.OVER_ITS_LIMIT

OF_NO_KEY = [
    "Invalid access token count", "Invalid token: unexpected character '<' at position 3", "missing key: 'role'",
    "Unprocessable: missing credentials field", "KeyError: invalid key 'foo'", "Unauthorized tool: 'shell'",
    "authentication tool failed: invalid token in request body", "KeyError: 'api_key'", "invalid api key",
    "jinja2.exceptions.UndefinedError: 'credentials' is undefined", "Unknown token <|im_start|> in prompt",
    "The tool 'mail' has no credentials", "bearer token is expired", "the api_key of the function is missing",
]  # fmt: skip


def raw(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def fail(status: int, body: Any) -> GatewayError:
    return failure(status, {}, raw(body), provider="up")


def said(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


def google(code: int, message: str, status: str, *reasons: str) -> dict[str, Any]:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": one} for one in reasons]
    return {"error": {"code": code, "message": message, "status": status, "details": details}}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        # ---- the key
        (400, google(400, "Bad key.", "INVALID_ARGUMENT", "API_KEY_INVALID"), KEY),
        (400, [google(400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT")], KEY),
        (400, google(400, "API key expired. Please renew the API key.", "INVALID_ARGUMENT"), KEY),
        (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***."}, KEY),
        (400, {"code": "InvalidApiKey", "message": "No API-key provided.", "request_id": "1"}, KEY),
        (401, said("Incorrect API key provided", code="invalid_api_key"), KEY),
        (401, {"detail": "Unauthorized"}, KEY),
        (401, b"", KEY),
        (401, b"<html><head><title>401 Authorization Required</title></head></html>", KEY),
        (401, {"code": "unauthenticated:bad-credentials", "error": "no"}, KEY),
        (403, google(403, "Your API key was reported as leaked. Please use another API key.", "PERMISSION_DENIED"),
         KEY),
        (403, google(403, "Consumer 'api_key:1' has been suspended.", "PERMISSION_DENIED", "CONSUMER_SUSPENDED"), KEY),
        (403, {"error": {"code": "UNAUTHORIZED", "message": "The API key you provided is invalid."}}, KEY),
        (403, {"message": "The security token included in the request is expired",
               "__type": "com.amazon.coral.service#ExpiredTokenException"}, KEY),
        (403, {"__type": "UnrecognizedClientException", "message": "x"}, KEY),
        (498, {"message": "invalid token"}, KEY),
        (498, said("Flex tier capacity exceeded. Try again later.", type="capacity", code="capacity_exceeded"), BUSY),
        (498, said("flex tier", code="capacity_exceeded"), BUSY),
        (498, said("Over capacity"), BUSY),
        (424, said("slow down", code="rate_limit_exceeded"), LIMITED),
        (408, said("x", code="context_length_exceeded"), CONTEXT),
        (425, b"", BUSY),
        (200, {"base_resp": {"status_code": 2049, "status_msg": "invalid api key"}}, KEY),
        (200, {"base_resp": {"status_code": 1004, "status_msg": "login fail"}}, KEY),
        (401, {"error": {"code": "1002", "message": "Authorization Token非法"}}, KEY),
        (200, {"error_code": 110, "error_msg": "Access token invalid or no longer valid"}, KEY),
        (200, {"Response": {"Error": {"Code": "AuthFailure.SecretIdNotFound", "Message": "x"}}}, KEY),
        # ---- numbers whose place tells nothing
        (400, {"error": {"code": 1002, "message": "invalid prompt format"}}, REFUSED),
        (400, {"code": 1001, "message": "parameter top_k is illegal"}, REFUSED),
        (400, {"code": "1001", "message": "parameter top_k is illegal"}, REFUSED),
        (400, {"code": 110, "msg": "bad image"}, REFUSED),
        (400, {"code": 30001, "msg": "bad image"}, REFUSED),
        (200, {"error": {"code": 111, "message": "[Errno 111] Connection refused"}}, EVENT),
        (200, {"error": {"code": 1113, "message": "x"}}, EVENT),
        (403, {"code": 30001, "message": "Sorry, your account balance is insufficient"}, UNPAID),
        # ---- the account has no money
        (402, said("Insufficient credits. Add more using https://x", code=402), UNPAID),
        (402, b"", UNPAID),
        (400, {"type": "error", "error": {"type": "invalid_request_error",
                                          "message": "Your credit balance is too low to access the API."}}, UNPAID),
        (400, {"code": "Arrearage", "message": "Access denied, please make sure your account is in good standing."},
         UNPAID),
        (403, {"error": {"code": "AccountOverdueError", "message": "overdue balance"}}, UNPAID),
        (403, {"code": "permission-denied", "error": "Your team has used all available credits."}, UNPAID),
        (403, said("Key limit exceeded (total limit).", code=403), UNPAID),
        (403, {"code": "AllocationQuota.FreeTierOnly", "message": "The free tier of the model has been exhausted."},
         UNPAID),
        (429, said("You exceeded your current quota", type="insufficient_quota", code="insufficient_quota"), SPENT),
        (429, said("Your account is suspended, check your plan", type="exceeded_current_quota_error"), SPENT),
        (429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}, SPENT),
        (200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, UNPAID),
        (400, said("You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 "
                   "UTC.", type="invalid_request_error"), UNPAID),
        (403, {"code": 403, "reason": "NOT_ENOUGH_BALANCE", "message": "not enough balance"}, UNPAID),
        (401, said("[sk-a***b] 该令牌额度已用尽", type="one_api_error"), UNPAID),
        # ---- a request that the account cannot pay for, or have at once
        (402, said("This request requires more credits, or fewer max_tokens. You requested up to 65536 tokens, but can "
                   "only afford 1234.", code=402), DEAR),
        (402, said("Prompt tokens limit exceeded: 25000 > 11000. To increase, visit https://x/c", code=402), DEAR),
        (413, said("Request too large for model `m` on tokens per minute (TPM): Limit 12000, Requested 15000",
                   type="tokens", code="rate_limit_exceeded"), OVER),
        (429, said("Request too large for gpt-4 on tokens per min (TPM): Limit 10000, Requested 15000.", type="tokens",
                   code="rate_limit_exceeded"), OVER),
        (429, said("Rate limit reached for m on tokens per min (TPM): Limit 10000, Used 9000, Requested 1500.",
                   type="tokens", code="rate_limit_exceeded"), LIMITED),
        (413, said("Request too large on tokens per minute (TPM): Limit 12000, Used 11000, Requested 1500"), LIMITED),
        # ---- a limit
        (429, b"", LIMITED),
        (429, b"<html><title>Too Many Requests</title></html>", LIMITED),
        (429, {"message": "You are using a Trial key, which is limited to 10 API calls / minute."}, LIMITED),
        (429, google(429, "Resource has been exhausted", "RESOURCE_EXHAUSTED"), LIMITED),
        (429, {"error": {"code": "1302", "message": "您当前使用该API的并发数过高"}}, LIMITED),
        (400, {"__type": "ThrottlingException", "message": "Too many requests, please wait"}, LIMITED),
        (400, {"code": "Throttling.RateQuota", "message": "Requests rate limit exceeded"}, LIMITED),
        (403, {"error": {"message": "Rate limit exceeded, slow down"}}, LIMITED),
        (503, {"error": {"code": "rate_limit_exceeded"}}, LIMITED),
        (400, {"message": "Too many tokens, please wait before trying again."}, LIMITED),
        (200, said("Too many tokens, please wait before trying again."), LIMITED),
        (400, {"detail": "An error occurred (ThrottlingException) when calling the ConverseStream operation: Too many "
                         "tokens, please wait before trying again."}, LIMITED),
        (500, {"detail": "An error occurred (ThrottlingException) when calling the Converse operation: slow"}, LIMITED),
        (200, "ThrottlingException: slow", LIMITED),
        (200, said("Error code: 429 - {'error': {'message': 'slow', 'code': None}}"), LIMITED),
        (200, {"ErrorMsg": {"Msg": "requests too frequent", "Code": 2003}}, LIMITED),
        (200, {"code": 429, "msg": "rate limit reached"}, LIMITED),
        (200, {"base_resp": {"status_code": 1039, "status_msg": "tpm"}, "choices": None}, LIMITED),
        (200, {"code": 11202, "message": "licc limit", "sid": "s"}, LIMITED),
        (200, {"Response": {"Error": {"Code": "RequestLimitExceeded", "Message": "x"}}}, LIMITED),
        (200, {"header": {"code": 11202, "message": "licc limit", "sid": "s"}}, LIMITED),
        (200, {"error": {"message": "Rate limit exceeded: free-models-per-min", "code": 429}}, LIMITED),
        (200, {"error": "Too many requests"}, LIMITED),
        (200, {"type": "error", "error": {"type": "rate_limit_error", "message": "x"}}, LIMITED),
        # ---- a model that this account may not use
        (403, said("Project `proj_1` does not have access to model `gpt-4`", code="model_not_found"), DENIED),
        (403, said("You are not allowed to sample from this model.", code="permission_denied"), DENIED),
        (403, said("Country, region, or territory not supported", code="unsupported_country_region_territory"), DENIED),
        (403, {"message": "You don't have access to the model with the specified model ID.",
               "__type": "AccessDeniedException"}, DENIED),
        (403, {"type": "error", "error": {"type": "permission_error", "message":
               "Your API key does not have permission to use the specified resource"}}, DENIED),
        (403, {"error": "this model requires a subscription, upgrade for access: https://x/upgrade"}, DENIED),
        (403, {"code": "Model.AccessDenied", "message": "Model access denied."}, DENIED),
        (404, {"error": {"code": "ModelNotOpen", "message": "Your account has not activated the model m."}}, DENIED),
        (400, {"error": {"message": "Your organization must be verified", "code": "organization_must_be_verified"}},
         DENIED),
        (402, {"error": "This model requires a Pro subscription"}, DENIED),
        (401, said("You have insufficient permissions. Missing scopes: model.request", code="missing_scope"), DENIED),
        (400, google(400, "User location is not supported for the API use.", "FAILED_PRECONDITION"), DENIED),
        # ---- a refusal of this one request
        (403, b"<!DOCTYPE html><html><title>Attention Required! | Cloudflare</title></html>", BLOCKED),
        (401, b"<html><title>Access denied | x used Cloudflare to restrict access</title></html>", BLOCKED),
        (403, b"", BLOCKED),
        (403, {"error": {"message": "Forbidden"}}, BLOCKED),
        (403, {"code": "The caller does not have permission to execute the specified operation", "error": "no"},
         BLOCKED),
        (401, said("OpenAI-Organization header should match organization for API key", code="mismatched_organization"),
         BLOCKED),
        (401, said("No such organization: org-x.", type="invalid_request_error"), BLOCKED),
        (403, {"error": {"code": "403", "message": "Access denied due to Virtual Network/Firewall rules."}}, BLOCKED),
        (401, said("Your request was blocked by the firewall", type="forbidden"), BLOCKED),
        (403, said("Your account has been suspended due to suspected violations of our usage policies."), BLOCKED),
        (403, said("This organization was temporarily disabled for harmful content", type="permission_error"), BLOCKED),
        (400, said("Your account is suspended: policy violation, usage policies"), BLOCKED),
        # ---- content
        (403, {"code": "permission-denied", "error": "Content violates usage guidelines. "}, FILTERED),
        (400, {"error": {"message": "Content Exists Risk", "type": "invalid_request_error"}}, FILTERED),
        (400, {"code": "DataInspectionFailed", "message": "Input data may contain inappropriate content."}, FILTERED),
        (400, {"error": {"code": "1301", "message": "系统检测到输入不安全或敏感内容"}}, FILTERED),
        (403, {"error": {"code": 403, "message": "Input was flagged", "metadata": {"reasons": ["violence"]}}},
         FILTERED),
        (400, said("The request was rejected because it was considered high risk", type="content_filter"), FILTERED),
        (400, {"error": {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, FILTERED),
        (451, {"error": {"message": "Request blocked: content policy violation"}}, FILTERED),
        (200, {"base_resp": {"status_code": 1026, "status_msg": "new_sensitive"}}, FILTERED),
        # ---- the context
        (400, said("This model's maximum prompt length is 131072 but the request contains 537812 tokens."), CONTEXT),
        (400, said("Invalid request: Your request exceeded model token limit: 262144 (requested: 291351)"), CONTEXT),
        (400, {"code": "InvalidParameter", "message": "Range of input length should be [1, 30720]"}, CONTEXT),
        (400, {"error": {"code": "1261", "message": "Prompt exceeds max length"}}, CONTEXT),
        (422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000",
               "error_type": "validation"}, CONTEXT),
        (413, said("Request body too large for gpt-4o model. Max size: 8000 tokens.", code="tokens_limit_reached"),
         CONTEXT),
        (413, said("Request body too large for gpt-4o model. Max size: 8000 tokens."), CONTEXT),
        (400, said("prompt token count of 140000 exceeds the limit of 128000", code="model_max_prompt_tokens_exceeded"),
         CONTEXT),
        (400, said("prompt token count of 140000 exceeds the limit of 128000"), CONTEXT),
        (400, {"message": "too many tokens: total number of tokens in the prompt exceeds the limit of 4081"}, CONTEXT),
        (400, {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400},
         CONTEXT),
        (400, {"error": {"code": 400, "message": "the request exceeds the available context size",
                         "type": "exceed_context_size_error"}}, CONTEXT),
        (500, {"error": {"code": 500, "message": "Context size has been exceeded."}}, CONTEXT),
        (400, {"__type": "ValidationException", "message": "Input is too long for requested model."}, CONTEXT),
        (400, {"object": "error", "message": "Prompt contains 40000 tokens and 0 draft tokens, too large for model "
               "with 32768 maximum context length", "code": "3051"}, CONTEXT),
        (400, said("input length and `max_tokens` exceed context limit: 198000 + 8192 > 200000"), CONTEXT),
        (400, said("prompt is too long: 212345 tokens > 200000 maximum"), CONTEXT),
        (403, said("Input token count + max_tokens parameter must be less than the context length of the model"),
         CONTEXT),
        (400, said("The input (9000 tokens) is longer than the model's context length (8192 tokens)."), CONTEXT),
        (400, said("The number of tokens to keep from the initial prompt is greater than the context length."),
         CONTEXT),
        (400, {"success": False, "errors": [{"code": 5021, "message": "AiError: x"}]}, CONTEXT),
        (200, {"error": {"message": "Your input exceeds the context window of this model.", "code": "x"}}, CONTEXT),
        (200, {"base_resp": {"status_code": 2013, "status_msg": "invalid params, context window exceeds limit"}},
         CONTEXT),
        (400, {"error": {"code": "InvalidParameter", "message": "Input length 130000 exceeds the maximum length 9."}},
         CONTEXT),
        (400, said("Total tokens of image and text exceed max message tokens.", code="InvalidParameter"), CONTEXT),
        (400, said("the number of input tokens 9000 cannot exceed the total tokens limit 8192 for this model"),
         CONTEXT),
        (400, said("The sum of prompt length (5000.0), query length (0) and max_tokens (100) should not exceed "
                   "max_num_tokens (4096)"), CONTEXT),
        (400, {"error": "Cannot truncate prompt with n_keep (5000) >= n_ctx (4096)"}, CONTEXT),
        (400, {"message": "max tokens of 4096 exceeded", "error_code": "390142"}, CONTEXT),
        (422, {"detail": "Prompt tokens count 300000 is over the maximum allowed 256000"}, CONTEXT),
        (400, said("Prompt has 9000 tokens, model supports at most 8192"), CONTEXT),
        (400, said("Total length of messages exceeds limit of 200000 characters"), CONTEXT),
        (500, said("input is too large to process. increase the physical batch size"), CONTEXT),
        (413, {"type": "error", "error": {"type": "request_too_large", "message": "Prompt is too long"}}, CONTEXT),
        (400, {"detail": "An error occurred (ValidationException) when calling the Converse operation: Input is too "
                         "long for requested model."}, CONTEXT),
        # ---- words of a context that is not full
        (400, said("`max_tokens` must be less than or equal to `32768`, the maximum value for `max_tokens` is less "
                   "than the `context_window` for this model", param="max_tokens"), REFUSED),
        (400, said("Unrecognized request argument supplied: context_length"), REFUSED),
        (400, said("unknown field context_window"), REFUSED),
        (400, said("The maximum tokens you requested exceeds the model limit of 4096."), REFUSED),
        # ---- no such model
        (404, said("Not found the model kimi-k9 or Permission denied", type="resource_not_found_error"), NO_MODEL),
        (404, said("No such thing", param="model"), NO_MODEL),
        (404, said("No allowed providers are available for the selected model."), NO_MODEL),
        (410, {"detail": "The model 'a/b' has reached its end of life on 2026-01-01"}, NO_MODEL),
        (404, {"detail": "Function 'x-1': Not found for account 'y'"}, NO_MODEL),
        (404, {"object": "error", "message": "The model `Qwen/Qwen2.5-7B-Instruct` does not exist.", "code": 404},
         NO_MODEL),
        (404, said("models/gemini-1.5-pro is not found for API version v1beta"), NO_MODEL),
        (404, {"type": "error", "error": {"type": "not_found_error", "message": "model: claude-3.5-x"}}, NO_MODEL),
        (404, said("No endpoints found for a/b-3.1.", code=404), NO_MODEL),
        (400, {"error": {"code": "1211", "message": "模型不存在"}}, NO_MODEL),
        (400, {"code": 20012, "message": "Model does not exist. Please check it carefully.", "data": None}, NO_MODEL),
        (400, said("The requested model is not supported.", code="model_not_supported"), NO_MODEL),
        (404, {"error": {"code": "InvalidEndpointOrModel.NotFound", "message": "x"}}, NO_MODEL),
        # ---- the request is wrong, whatever its words remind of
        (400, said("Invalid value: 'unauthorized'.", param="reasoning_effort", code="invalid_value"), REFUSED),
        (400, said("Invalid keyword argument 'x'"), REFUSED),
        (400, said("Request violates the schema constraint of 'n'"), REFUSED),
        (400, said("invalid key 'x' in object"), REFUSED),
        (400, said("cannot parse 'unauthorized'"), REFUSED),
        (200, said("cannot parse \"it is unauthorized\""), EVENT),
        (400, said("'quota' is not a valid tool name: rate limit", param="tools"), REFUSED),
        (422, {"detail": [{"loc": ["body", "api_key"], "msg": "invalid api key", "type": "extra_forbidden"}]},
         UNPROCESSABLE),
        (422, {"message": {"detail": [{"loc": ["body", "n"], "msg": "no"}]}, "type": "invalid_request_error"},
         UNPROCESSABLE),
        (400, {"title": "Bad Request", "status": 400, "detail": "temperature must be below 2", "type": "about:blank"},
         REFUSED),
        (413, b"", LARGE),
        # ---- what another server said, which the request names
        (400, said("401 Client Error: Unauthorized for url: https://x.example/a.png", type="BadRequestError"), REFUSED),
        (400, said("401 Client Error: Unauthorized for url: https://x.example/a.png"), REFUSED),
        (400, said("Error while downloading https://x.example/a.png: 401 Unauthorized.", code="invalid_image_url"),
         REFUSED),
        (400, said("Failed to fetch image: authentication required", code=400), REFUSED),
        (400, said("Failed to fetch image: invalid API key"), REFUSED),
        (400, said("https://x.example/a.png answered: invalid API key"), REFUSED),
        (400, said("Failed to fetch image", code="unauthorized"), REFUSED),
        (200, said("MCP server 'x' refused", code="authentication_error"), EVENT),
        (400, said("Wrong key. Find yours at https://x.example/files", code="invalid_api_key"), KEY),
        (400, said("Unauthorized tool: 'shell'", type="invalid_request_error"), REFUSED),
        (400, said("The file has expired or its access token is invalid"), REFUSED),
        (400, said("429 Client Error: Too Many Requests for url: https://x.example/a.png"), REFUSED),
        (400, said("failed to retrieve media: received status code: 429 Too Many Requests"), REFUSED),
        (400, said("Upstream returned 429 Too Many Requests"), REFUSED),
        (400, said("Unable to download the file. Upstream returned 429 Too Many Requests. Check the URL."), REFUSED),
        (400, said("Incorrect API key", code="invalid_value"), REFUSED),
        # ---- words that speak of a key, where neither the status nor a code does
        *((400, said(words), REFUSED) for words in OF_NO_KEY),
        *((status, said(words), kind) for words in OF_NO_KEY
          for status, kind in ((422, UNPROCESSABLE), (424, FAILED), (500, FAILED), (200, EVENT))),
        (400, said("API key not valid. Please pass a valid API key."), REFUSED),
        (400, said("Incorrect API key provided: sk-a. You can find your API key at https://x.example/keys."), REFUSED),
        (400, said("Failed to fetch image: API key not valid", status="INVALID_ARGUMENT"), REFUSED),
        (400, said("tool 'x' said: incorrect API key provided", param="tools", status="INVALID_ARGUMENT"), REFUSED),
        *((403, said(words), BLOCKED) for words in (
            "Invalid access token count", "Unauthorized tool: 'shell'", "missing credentials field in the tool",
            "unauthorized parameter 'x'", "invalid bearer token type in `tools`", "authentication required tools")),
        (200, said("Error retrieving tool list from MCP server: 'x'. Http status code: 401 (Unauthorized)",
                   param="tools", code="http_error"), EVENT),
        (200, said("Error retrieving tool list from MCP server: 'x': authentication failed"), EVENT),
        (200, said("Rate limit exceeded", param="tools"), EVENT),
        (403, said("Could not fetch image: authentication required"), BLOCKED),
        # ---- none the less the key's or the account's, though an address stands behind it
        (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***. You can "
               "obtain an API key from https://x.example."}, KEY),
        (403, said("Incorrect API key provided, see https://x.example/keys"), KEY),
        (403, said("The API key provided is invalid."), KEY),
        (403, said("Authentication failed: invalid access token for this account"), KEY),
        (403, said("Missing authentication header"), KEY),
        (400, google(400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT", "API_KEY_INVALID"),
         KEY),
        (200, said("Rate limit exceeded. Read https://x.example/limits for more."), LIMITED),
        (403, said("Unauthorized"), KEY),
        (403, {"success": False, "errors": [{"code": 10000, "message": "Authentication error"}]}, KEY),
        (403, {"message": "The security token included in the request is expired"}, KEY),
        # ---- the server
        (500, b"", FAILED),
        (500, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, BUSY),
        (424, {"error": "Request failed during generation: Server error", "error_type": "generation"}, FAILED),
        (503, {"error": "Model x is currently loading", "estimated_time": 20.0}, BUSY),
        (429, {"error": "Model is overloaded", "error_type": "overloaded"}, LIMITED),
        (404, {"detail": "Not Found"}, GARBAGE),
        (200, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, BUSY),
        (200, {"error": {"code": 504, "message": "x"}}, LATE),
        (200, {"error": {"code": "timeout", "message": "x"}}, LATE),
        (200, {"error": {"message": "The server is overloaded"}}, BUSY),
        (200, {"x_groq": {"id": "r", "error": "internal_server_error"}}, EVENT),
        (200, {"choices": [{"index": 0, "delta": {"content": ""}, "error": {"code": 429, "message": "slow"}}]},
         LIMITED),
        (200, {"error": {"code": 502, "message": "Network connection lost."}}, EVENT),
    ],
)  # fmt: skip
def test_what_it_means(status: int, body: Any, kind: Kind) -> None:
    error = stream_failure(raw(body), provider="up") if status == 200 else fail(status, body)
    assert error.kind.code == kind.code and error.kind is kind, (error.kind.code, error.message)
