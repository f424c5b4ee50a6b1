"""The codes of real providers' errors with their meanings, and the look-up.

A code is compared in lower case, without punctuation and without "error" or "exception" at its end, so one row serves
``rate_limit_exceeded``, ``RateLimitExceeded`` and ``rate-limit-exceeded``.  The meaning of a number depends on the
provider, so ``complaint`` puts the provider's name before it, if its place shows that (``zhipu 1113``, ``baidu 110``).
Sources: the error pages of the providers' API references, and error bodies in public bug reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headgate import errors
from headgate.errors import Kind

KEY = errors.UPSTREAM_AUTH  # the key itself is refused
UNPAID = errors.UPSTREAM_UNPAID  # the account has no money or no quota left
LIMITED = errors.RATE_LIMITED
DENIED = errors.UPSTREAM_MODEL_DENIED  # this account may not use this model
BLOCKED = errors.UPSTREAM_DENIED  # this request is refused; others may not be
NO_MODEL = errors.UPSTREAM_MODEL_NOT_FOUND
FILTERED = errors.CONTENT_FILTER
CONTEXT = errors.CONTEXT_LENGTH
LARGE = errors.PAYLOAD_TOO_LARGE
BUSY = errors.UPSTREAM_OVERLOADED
LATE = errors.UPSTREAM_TIMEOUT
FAILED = errors.UPSTREAM_FAILED
INVALID = errors.UPSTREAM_REFUSED  # the request is wrong, rather than a key or a limit

_NAMES: Mapping[Kind, str] = {
    KEY: """
        invalidapikey apikeyinvalid incorrectapikey apikeyexpired expiredapikey apikeynotfound missingapikey
        badapikey invalidkey keyinvalid keyexpired apikeydisabled disabledapikey apikeyrevoked revokedapikey
        apikeysuspended apikeyserviceblocked apikeyhttpreferrerblocked apikeyipaddressblocked
        apikeyandroidappblocked authentication authenticationfailed authfailure autherror authfailed
        invalidauthentication authenticationtoken unauthenticated unauthenticatedbadcredentials unauthorized
        unauthorised unauthorizedclient badcredentials invalidcredentials invalidtoken tokenexpired
        expiredtoken invalidaccesstoken accesstokenexpired accessdeniedinvalidapikey incorrectapikeyprovided
        unrecognizedclient invalidsignature signaturedoesnotmatch invalidclienttokenid
        authfailuresignaturefailure authfailuresecretidnotfound authfailureinvalidsecretid
        missingauthenticationtoken invalidsubscriptionkey consumersuspended consumerinvalid accountdeactivated
        accountdisabled organizationdisabled invalidiamtoken invalidgrant notauthorizedtoken
        authorizationrequired minimax1004 minimax2049 spark10005 spark10016 spark11200
    """,
    UNPAID: """
        insufficientquota insufficientbalance insufficientcredits insufficientcredit insufficientfunds
        insufficientuserquota exceededcurrentquota exceededquota currentquotaexceeded billing billingnotactive
        billinghardlimitreached billinghardlimit billingdisabled billinglimit paymentrequired outofcredits
        creditbalancetoolow creditsexhausted creditlimitexceeded nocredits arrearage accountoverdue
        accountinarrears arrears overduebalance balancenotenough notenoughbalance quotaexhausted
        allocationquotafreetieronly
        prepaidbilloverdue postpaidbilloverdue resourcepackexhausted freeallocatedquotaexceeded
        failedoperationresourcepackexhausted failedoperationfreeresourcepackexhausted monthlylimitexceeded
        spendinglimitreached spendlimitreached usagelimitreached usagelimitexceeded budgetexceeded
        keylimitexceeded minimax1008 minimax2056 spark11201
    """,
    LIMITED: """
        ratelimit ratelimited ratelimitexceeded ratelimitreached ratelimiterror toomanyrequests
        requestlimitexceeded requestslimitexceeded throttling throttled throttlingratequota
        throttlingallocationquota throttlinguser resourceexhausted limitrequests limittokens limitburstrate
        requestratelimited quotaexceeded servicequotaexceeded concurrencylimitexceeded setlimitexceeded
        inferencelimitexceeded requestbursttoofast limitexceeded ratelimitexceededendpointrpmexceeded
        ratelimitexceededendpointtpmexceeded modelaccountrpmratelimitexceeded modelaccounttpmratelimitexceeded
        modelaccountipmratelimitexceeded accountratelimitexceeded ratelimitexceededfoundationmodelrpmexceeded
        tokensperminute requestsperminute tpmlimitexceeded rpmlimitexceeded dailylimitexceeded
        dailyratelimitexceeded tokenslimitexceeded usertoomanyrequests slowdown minimax1002 minimax1039
        minimax1041 minimax2045 spark10007 spark11202 spark11203 spark10006 errorcode429
    """,
    DENIED: """
        modelaccessdenied modelnotallowed modelnotopen nomodelaccess accessdeniedunpurchased
        operationdeniedservicenotopen operationdeniedservicenotsubscribed modelnotsubscribed planrequired
        subscriptionrequired modelpermissiondenied unsupportedcountryregionterritory unsupportedcountry
        unsupportedregion locationnotsupported userlocationinvalid organizationmustbeverified
        organizationnotverified verificationrequired gatedrepo servicedisabled insufficientpermissions
        insufficientscope missingscope missingscopes modelnotavailableforplan noaccess
        modelaccountnotauthorized unpurchased organizationrestricted modelpermissionblockedorg
        modelpermissionblockedproject
    """,
    BLOCKED: """
        mismatchedorganization mismatchedproject invalidorganization invalidproject organizationnotfound
        projectnotfound accessdeniednetwork publicaccessdisabled ipnotauthorized ipaddressnotallowed
    """,
    NO_MODEL: """
        modelnotfound modelnotexist modelnotexists modeldoesnotexist nosuchmodel unknownmodel invalidmodel
        modeldecommissioned modeldeprecated modelnotavailable modelremoved modelretired deploymentnotfound
        invalidmodelid modelunavailable invalidmodelname modelnotsupported unsupportedmodel
        invalidendpointormodelnotfound invalidendpointormodel notfoundmodel modelidentifierinvalid
        unsupportedapiformodel modelnotloaded invalidendpointormodelmodelidaccessdisabled
    """,
    FILTERED: """
        contentfilter contentfiltered contentpolicyviolation contentpolicy contentmoderation moderation
        moderationblocked responsibleaipolicyviolation datainspectionfailed datainspection contentsafety
        sensitivecontentdetected inputtextsensitivecontentdetected inputimagesensitivecontentdetected
        outputtextsensitivecontentdetected sensitivecontentdetectedseverelyviolation inputtextriskdetection
        outputtextriskdetection promptblocked prohibitedcontent blocklist spii recitation safety unsafecontent
        riskcontrol jailbreak guardrail guardrailintervened contentrejected flagged policyviolation
        usagepolicyviolation invalidprompt minimax1026 minimax1027 spark10013 spark10014 spark10019
    """,
    CONTEXT: """
        contextlengthexceeded contextlength contextwindowexceeded contextwindowexceedederror
        maxcontextlengthexceeded exceedcontextsize contextsizeexceeded modelcontextwindowexceeded
        tokenslimitreached prompttoolong promptistoolong inputtoolong modelmaxprompttokensexceeded
        maxprompttokensexceeded inputlengthexceeded inputlengthtoolong maxtokensexceeded
        stringabovemaxlengthprompt requesttoomanytokens toomanytokens spark10907 modellength
    """,
    LARGE: "requesttoolarge payloadtoolarge requestentitytoolarge bodytoolarge contenttoolarge",
    BUSY: """
        overloaded engineoverloaded serveroverloaded serverisbusy serverbusy servicebusy modelbusy systembusy
        serviceunavailable unavailable modelloading modelnotready enginebusy capacityexceeded
        insufficientcapacity servicetiercapacityexceeded servicetiercapacity providerunavailable
        providerpoolexhausted nocapacity modelcapacityexceeded temporarilyunavailable
        insufficientsystemresource modelservingunavailable spark10008 spark10010 spark10110 errorcode503
    """,
    LATE: """
        timeout requesttimeout requesttimeouterror deadlineexceeded gatewaytimeout modeltimeout
        upstreamtimeout timedout internalerrortimeout providertimeout minimax1001
    """,
    FAILED: """
        server servererror internalserver internal internalservererror internalfailure internalerror
        internalerroralgo modelerror modelstream modelserving apierror networkerror generation
        incompletegeneration upstreamerror connectionerror badgateway providererror inferenceerror
        malformedfunctioncall other finisherror minimax1000 minimax1024 minimax1033 spark10012
    """,
    INVALID: """
        invalidvalue invalidtype invalidparameter invalidparametererror unsupportedvalue unsupportedparameter
        missingrequiredparameter missingparameter unknownparameter invalidargument validation validationfailed
        extraforbidden missing valueerror jsoninvalid invalidjson invalidschema invalidfunctionparameters
        invalidinput invalidimageurl invalidbase64 integerabovemaxvalue integerbelowminvalue
        decimalabovemaxvalue decimalbelowminvalue stringabovemaxlength arrayabovemaxlength stringtype
        stringtooshort typeerror enum literalerror intparsing outofrange lessthanequal greaterthanequal
        toolusefailed jsonvalidatefailed wrongapiformat badrequest invalidrequestparameter minimax2013
        minimax1042
    """,
}

# docs.bigmodel.cn, error codes
_ZHIPU: Mapping[Kind, str] = {
    KEY: "1000 1001 1002 1003 1004 1110 1111 1112",
    UNPAID: "1113 1309",
    LIMITED: "1302 1303 1304 1308 1310 1313",
    DENIED: "1220 1311",
    NO_MODEL: "1211 1221 1222",
    FILTERED: "1300 1301",
    CONTEXT: "1261",
    BUSY: "1305 1312 1234",
    INVALID: "1210 1212 1213 1214 1215",
}

# aip.baidubce.com, error_code
_BAIDU: Mapping[Kind, str] = {
    KEY: "110 111 336012",
    LIMITED: "18 336501 336502 336503 336504 336505 336507",
    UNPAID: "17 19 336508",
    FILTERED: "336104 336105",
    CONTEXT: "336007 336103",
    BUSY: "336100",
}

# docs.siliconflow.cn, and others with unique numbers.  No bare number means a key or an account's money.
_OTHERS: Mapping[Kind, str] = {
    NO_MODEL: "20012",
    INVALID: "20015 3024",
    DENIED: "30003",
    LARGE: "20041",
    BUSY: "50505 3505",
    LATE: "50504",
    CONTEXT: "5021",
}


def _table(owner: str, source: Mapping[Kind, str]) -> dict[str, Kind]:
    return {owner + code: kind for kind, codes in source.items() for code in codes.split()}


_BY_CODE = _table("baidu", _BAIDU) | _table("zhipu", _ZHIPU) | _table("", _OTHERS) | _table("", _NAMES)


def meaning(codes: Iterable[str]) -> Kind | None:
    """Return the meaning of an error's codes together; None if none is known.

    The first code with more meaning than "the request is wrong" counts.  A spent account counts more than a limit.
    """
    found = [kind for code in codes if (kind := _BY_CODE.get(_plain(code)) or _of_parts(code)) is not None]
    if UNPAID in found:
        return UNPAID
    return next((kind for kind in found if kind not in (INVALID, FAILED)), found[0] if found else None)


def _of_parts(code: str) -> Kind | None:
    """Look up the parts of a code: ``Throttling`` of ``Throttling.RateQuota``, the last part of a URI."""
    if " " in code:
        return None
    last = code.rstrip("/").replace("#", "/").rpartition("/")[2]
    for part in (last, last.partition(".")[0], last.rpartition(".")[2]) if last != code or "." in code else ():
        if (kind := _BY_CODE.get(_plain(part))) is not None:
            return kind
    return None


def _plain(code: str) -> str:
    letters = "".join(char for char in code.lower() if char.isalnum())
    for end in ("exception", "error"):
        if letters.endswith(end) and len(letters) > len(end) and letters not in _BY_CODE:
            letters = letters.removesuffix(end)
    return letters
