r"""The words of errors without a code: one pattern for each meaning, with one phrase a line.

A group marks the nouns of a phrase that would harm others than the caller.  If the request contains such a noun, the
phrase proves nothing (see ``classes``).  Every repetition is bounded, so that no text takes long: a test measures that.
"""

from __future__ import annotations

import re

Pattern = re.Pattern[str]


def _phrases(*phrases: str) -> Pattern:
    return re.compile("|".join(phrases), re.IGNORECASE)


# A noun after these words changes their subject: ``invalid access token count``
_NO_NOUN = r"(?! (?!(?:provided|supplied|given|specified|passed|used|sent|found|for|in|or|and|to|was|is|has)\b)\w)"
_KEYS = r"((?:api|access|secret|subscription)[ _-]?(?:key|token)|bearer token|credentials?)"

# ------------------------------------------------------------------------------------- of the request alone

CONTEXT = _phrases(
    r"context.?(?:length|window|size|limit)",
    r"max(?:imum)? (?:context|prompt|input|sequence|model)(?: token)? (?:length|len)",
    r"max_(?:model|seq|input|total)_(?:len|tokens)",
    r"(?:longer|greater|larger) than (?:the )?(?:model|context|max)",
    r"(?:prompt|inputs?|messages?|conversation|text|sequence|history)(?: \w{1,20}){0,3} too (?:long|many tokens)",
    r"(?:prompt|input|tokens?) exceeds? (?:the )?(?:max|limit|model|length)",
    r"(?:prompt|input) (?:contains|has|is) \d{1,9} tokens",
    r"too many (?:input |prompt )?tokens(?! per|\W{1,3}please wait)",
    r"reduce (?:the length|(?:your|the) (?:prompt|input|messages))",
    r"exceed(?:s|ed|ing)?(?: [^\s.]{1,30}){0,6} (?:number of tokens|token limit|input tokens|max(?:imum)? tokens)",
    r"exceed(?:s|ed|ing)? (?:the |your |this )?model(?:'s)? (?:(?:token|input|prompt|context|max(?:imum)?) ){1,3}"
    r"(?:limit|length)",
    r"(?:input|prompt|total) tokens? count",
    r"input (?:length|tokens?)(?: \d{1,12})?"
    r" (?:(?:can ?not|may not|can't|shall not) exceed|should|must|exceed|is|and|\+)",
    r"\btokens(?: \w{1,20}){0,6} exceeds? (?:the )?max(?:imum)?(?: \w{1,20})? tokens",
    r"sum of (?:the )?(?:prompt|input) (?:length|tokens)",
    r"length of (?:the |your )?(?:messages|prompt|inputs?|conversation) exceed",
    r"(?:prompt|inputs?) (?:is|are) too large to process",
    r"\bn_keep\b(?: \(\d{1,12}\))? ?>=? ?n_ctx|exceeds? n_ctx",
    r"max(?:imum)? tokens of \d{1,12} exceeded",
    r"inputs`? (?:tokens \+|must have less than)",
    r"token length exceeds?",
    r"\d tokens (?:>|exceeds?) \d",
    r"max size: \d{1,9} tokens",
    r"requested token count",
    r"tokens in (?:the|your) prompt",
    r"tokens to keep from the initial prompt",
    r"上下文.{0,6}(?:超|过长|长度)",
    r"(?:输入|文本|提示词|tokens?).{0,8}(?:过长|超长|超出|超过)",
)
NO_CONTEXT = _phrases(  # phrases that name the window or a similar field, but have another subject
    r"less than the .?context_window",
    r"(?:unrecogni[sz]ed|unknown|unexpected|unsupported|extra)(?: \w{1,20}){0,3}"
    r" (?:argument|parameter|field|inputs?|name)",
)
FILTERED = _phrases(
    r"content.?(?:filter|policy|management|moderation|exists risk)",
    r"data_?inspection|responsibleai|moderation|jailbreak|considered high risk|risk control",
    r"safety (?:system|policy|filter|check|setting|guideline)",
    r"usage (?:guidelines?|polic(?:y|ies))",
    r"(?:content|prompt|input|request|message|image)(?: \w{1,20}){0,4}"
    r" (?:violat(?!\w{1,4} (?:\S{1,40} ){0,2}(?:constraint|schema|format))|flagged|prohibited|inappropriate"
    r"|high risk)",
    r"(?:sensitive|inappropriate|unsafe|harmful|prohibited) (?:content|information|words?|use)",
    r"敏感|违规|不安全|不合规",
)
_NAMED_MODEL = (
    r"model_not_found|model_decommissioned|deploymentnotfound",
    r"(?:no such|unknown|invalid)[ _]model(?! param)",
    r"not a valid model|model (?:id|identifier|name) is invalid|^model: |no endpoints found",
    r"models/\S{1,200} is not found",
    r"not found the model|no allowed providers are available|reached (?:its )?end of life",
    r"function '[^']{1,100}': not found for account",
    r"模型不存在",
)
NO_MODEL = _phrases(  # if the status already means "missing"; a dot in a name ends no sentence
    r"\b(?:model|deployment)s?\b(?:[^.]|\.(?=\S)){0,120}?\b(?:not (?:be )?found"
    r"|no(?:t| longer)? (?:exist|support|available)|does not exist"
    r"|doesn't exist|invalid|deprecated|removed|retired|unknown|decommissioned)",
    *_NAMED_MODEL,
)
NO_MODEL_400 = (
    _phrases(  # if the status may mean anything: the verb stands by the name; "does not support" does not count
        r"\b(?:model|deployment)\b(?:\s{1,4}\S{1,200}){0,5}?\s(?:not (?:be )?found|not exist|does(?: not|n't) exist"
        r"|(?:not|no longer) (?:available|supported)\b|been (?:deprecated|removed|decommissioned|retired))",
        *_NAMED_MODEL,
    )
)
UNAFFORDABLE = _phrases(
    r"prompt tokens limit exceeded",
    r"can only afford|requires more credits, or|fewer max_tokens",
    r"(?:lower|reduce) (?:the |your )?max_tokens",
)
OF_A_HEADER = _phrases(  # that the client may have sent
    r"openai-(?:organization|project)|no such (?:organization|project)|organization header|anthropic-beta",
)
BLOCKED = _phrases(
    r"(request)(?: has been| is| was)? (?:blocked|rejected by|denied by)",
    r"blocked by (?:the |our )?(firewall|waf)",
)
OWN_LIMIT = re.compile(r"limit:? (\d{1,12}),? (?:used:? \d{1,12},? )?requested:? (\d{1,12})", re.IGNORECASE)

# ------------------------------------------------------------------------------------- of the account, or the server

BAD_KEY = _phrases(
    r"(?:invalid|incorrect|wrong|expired|revoked|disabled|malformed|missing|unknown|bad|no)(?: \w{1,20})?"
    rf" {_KEYS}\b{_NO_NOUN}",
    rf"{_KEYS}\b(?: [^\s.]{{1,40}}){{0,6}}? ?(?:not valid|invalid|incorrect|expired|revoked|disabled|deactivated"
    r"|suspended|leaked|missing|malformed|not found|unknown|does not exist|无效|错误|过期)",
    rf"(?:no|invalid|missing) (auth(?:entication|orization)?) (?:key|token|credentials?|header)\b{_NO_NOUN}",
    r"(consumer)\b.{1,80}?\bsuspended",
    r"(organization) has been disabled",
    r"令牌无效|无效的令牌",
)
UNAUTHORIZED = _phrases(  # about a key only if the status is
    rf"(\bunauthori[sz]ed\b|\bunauthenticated\b|not authenticated){_NO_NOUN}",
    rf"(authentication) (?:failed|failure|error|required)\b{_NO_NOUN}",
    r"(security token)\b(?: \w{1,20}){0,6} (?:expired|invalid)",
    r"鉴权失败|认证失败|身份验证失败",
)
SUSPENDED = _phrases(  # for any reason
    r"(account|organization|team|workspace)\b(?: \S{1,60}){0,2}? (?:has been|is|was)(?: \w{1,20})?"
    r" (?:suspended|disabled|deactivated|banned|terminated|blocked|restricted)",
)
ELSEWHERE = _phrases(  # words of another server that the request names: for an image, a tool
    r"\b(?:fetch|download|retriev)(?:\w{0,3})\b",
    r"\b(?:mcp|media|images?|audio|videos?|files?|attachments?|urls?|web ?(?:page|site)|tool)\b",
    r"(?<!at )(?<!see )(?<!visit )(?<!using )(?<!via )(?<!to )(?<!docs: )(?<!check )(?<!here: )\bhttps?://",
)
PASSED_ON = _phrases(  # ``Upstream returned 429 Too Many Requests``: the status line of another server
    r"(?:status(?: code)?:?|returned|responded(?: with)?|received|got|error:?) ?\(?[45]\d\d\b[ ,:(]{0,3}"
    r"(?=unauthori|too many requests|forbidden|service unavailable|gateway time)",
)
SENTENCE = re.compile(r"[.!?;。！？](?=\s|$)|\n|[。！？]")
KEY_CODES = ("INVALID_ARGUMENT", "Client specified an invalid argument")  # of Google, of xAI
WRONG_KEY = _phrases(r"(api key) (?:not valid|expired|not found)", r"incorrect (api key) provided")
UNPAID = _phrases(
    r"(insufficient (?:account )?(?:balance|credits?|funds|quota|user quota))",
    r"(balance) (?:is )?(?:too low|insufficient|not enough|exhausted)|not (enough balance)",
    r"(?:out of|no|any|enough|run out of|all available|more) (credits?)\b",
    r"(credits?) (?:are |have been |has been |is )?(?:exhausted|depleted|used up)",
    r"exceeded your ((?:current|monthly|included|daily)[^.]{0,30}?(?:quota|credits?))",
    r"(billing|spending|spend) (?:hard )?limit",
    r"(payment required|arrears|arrearage|overdue)",
    r"(key limit) exceeded",
    r"(usage limits?)\. you will regain access|reached your specified (?:api )?(usage limits?)",
    r"余额不足|欠费|余额已用完|额度不足|额度已?用[尽完]|额度已耗尽|额度耗尽",
)
LIMITED = _phrases(
    r"(rate.?limit|too many requests|throttl|requests? limit reached|resource.?(?:has been )?exhausted)",
    r"(quota)(?: \w{1,20}){0,3} (?:exceeded|exhausted|reached)",
    r"exceeded(?: \w{1,20}){0,4} (quota)",
    r"((?:requests?|tokens) per (?:second|min(?:ute)?|hour|day))",
    r"(\b[TR]P[MD]\b)",
    r"(too many tokens)\W{1,3}please wait|(requests?) (?:is |are )?too frequent",
    r"(concurren(?:t|cy))(?: \w{1,20}){0,3} (?:limit|exceed)",
    r"请求过于频繁|访问频率|速率限制|限流|并发数",
)
_REGIONS = (
    r"(?:country|region|territory|location)\b(?:[, ]{1,2}\w{1,20}){0,4}"
    r" (?:not supported|unsupported|restricted|not available)",
    r"not (?:available|supported) in your (?:country|region|location)",
)
REGION = _phrases(*_REGIONS)
DENIED = _phrases(
    r"(?:no|not|n't|without)(?: \w{1,20}){0,3} access to(?: \S{1,80}){0,4} (?:model|deployment|endpoint|engine)",
    r"access to(?: \S{1,80}){0,4} (?:denied|restricted|not allowed)",
    r"models?\b(?: \S{1,120}){0,4} (?:gated|restricted"
    r"|not (?:allowed|permitted|authorized|enabled|included|accessible))",
    r"models?(?: \S{1,120}){0,3} requires?",
    r"not (?:authorized|allowed|permitted)(?: \w{1,20}){0,6} model",
    r"permissions? (?:to|for)(?: \w{1,20}){0,4} (?:model|deployment|resource|endpoint)",
    r"must be verified",
    r"verify your organization",
    *_REGIONS,
    r"upgrade(?: \w{1,20}){0,3} (?:plan|access|subscription)",
    r"(?:requires?|not included in)(?: \w{1,20}){0,3} (?:plan|subscription|tier)",
)
BUSY = _phrases(r"(overloaded|unavailable|at capacity|over capacity|capacity exceeded|try again later|busy|繁忙|过载)")
LATE = _phrases(r"(timed? ?out|timeout|deadline|超时)")

# ------------------------------------------------------------------------------------- of a web page

KEY_PAGE = _phrases(r"authorization required|unauthorized|authentication required")
BLOCK_PAGE = _phrases(r"attention required|blocked|cloudflare|access denied|forbidden|captcha|firewall")
