"""Decides the class of a provider's failure by its status, its codes and its words.

The tables have the codes that providers publish, in lower case.
"""

import re
from collections.abc import Sequence
from http import HTTPStatus

from app.errors import (
    AuthenticationFailed,
    BadRequest,
    ConnectionFailed,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    ServerFailure,
)

Kind = type[ProviderError]

BY_STATUS: dict[int, Kind] = {
    401: AuthenticationFailed,
    402: QuotaExhausted,
    403: AuthenticationFailed,
    408: ConnectionFailed,
    409: ServerFailure,
    429: RateLimited,
    498: Overloaded,  # Groq: the flexible tier has no capacity
    499: ConnectionFailed,
    503: Overloaded,
    529: Overloaded,
}
# Names of errors that have no status of their own. These errors come in a 200, or as an event
# of a stream.
BY_TYPE: dict[str, Kind] = {
    "access_denied": AuthenticationFailed,
    "accessdenied": AuthenticationFailed,
    "accessdeniedexception": AuthenticationFailed,
    "authentication_error": AuthenticationFailed,
    "billing_error": QuotaExhausted,
    "data_residency_mismatch": BadRequest,
    "deadline_exceeded": ConnectionFailed,
    "engine_overloaded_error": Overloaded,
    "expiredtokenexception": AuthenticationFailed,
    "image_parse_error": BadRequest,
    "invalid_api_key": AuthenticationFailed,
    "invalid_argument": BadRequest,
    "invalid_image": BadRequest,
    "invalid_prompt": BadRequest,
    "invalid_request_error": BadRequest,
    "invalidapikey": AuthenticationFailed,
    "invalidparameter": BadRequest,
    "model_not_found": BadRequest,
    "modelnotreadyexception": Overloaded,
    "modeltimeoutexception": ConnectionFailed,
    "not_found_error": BadRequest,
    "overloaded_error": Overloaded,
    "permission_denied": AuthenticationFailed,
    "permission_error": AuthenticationFailed,
    "rate_limit_error": RateLimited,
    "rate_limit_exceeded": RateLimited,
    "rate_limit_reached_error": RateLimited,
    "request_too_large": BadRequest,
    "resource_exhausted": RateLimited,
    "resourcenotfoundexception": BadRequest,
    "server_is_overloaded": Overloaded,
    "service_unavailable": Overloaded,
    "service_unavailable_error": Overloaded,
    "serviceunavailableexception": Overloaded,
    "slow_down": Overloaded,
    "throttling": RateLimited,
    "throttlingexception": RateLimited,
    "timeout_error": ConnectionFailed,
    "too_many_requests": RateLimited,
    "toomanyrequestsexception": RateLimited,
    "unauthenticated": AuthenticationFailed,
    "unauthorized": AuthenticationFailed,
    "unavailable": Overloaded,
    "unrecognizedclientexception": AuthenticationFailed,
    "validationexception": BadRequest,
}
# The number of an error has a meaning only in the form of the provider that uses the number.
BY_NUMBER: dict[str, dict[str, Kind]] = {
    "base_resp": {  # MiniMax
        "1001": ConnectionFailed,
        "1002": RateLimited,
        "1004": AuthenticationFailed,
        "1008": QuotaExhausted,
        "1026": BadRequest,
        "1027": BadRequest,
        "1039": RateLimited,
        "1041": RateLimited,
        "1042": BadRequest,
        "2013": BadRequest,
        "2045": RateLimited,
        "2049": AuthenticationFailed,
        "2056": QuotaExhausted,
    },
    "error_code": {  # Baidu
        "2": Overloaded,
        "3": BadRequest,
        "4": RateLimited,
        "6": AuthenticationFailed,
        "13": AuthenticationFailed,
        "14": AuthenticationFailed,
        "15": AuthenticationFailed,
        "17": QuotaExhausted,
        "18": RateLimited,
        "19": QuotaExhausted,
        "100": AuthenticationFailed,
        "110": AuthenticationFailed,
        "111": AuthenticationFailed,
        "336001": BadRequest,
        "336002": BadRequest,
        "336003": BadRequest,
        "336006": BadRequest,
        "336007": BadRequest,
        "336100": Overloaded,
        "336501": RateLimited,
        "336502": RateLimited,
    },
}
# These codes say, with any status, that an account is used up; waiting does not help.
QUOTA_CODES = frozenset(
    {
        "accountoverdueerror",
        "allocationquota.freetieronly",
        "arrearage",
        "billing_hard_limit_reached",
        "billing_not_active",
        "blocked_api_access",
        "budget_exceeded",
        "contract_spend_limit_reached",
        "credit_balance_exhausted",
        "credit_limit",
        "credits_exhausted",
        "enforced_spend_limit_reached",
        "exceeded_current_quota_error",
        "insufficient_balance",
        "insufficient_credits",
        "insufficient_funds",
        "insufficient_quota",
        "insufficient_user_quota",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "payment_required",
        "project_spend_limit_exceeded",
        "1113",  # Zhipu: the account is in arrears
        "1309",  # Zhipu: the plan has expired
    }
)
# Codes of a request, or of its answer, that a filter has refused. Gateways pass them on with any
# status, and a second request would be refused, too.
REFUSAL_CODES = frozenset(
    {
        "bio_policy",
        "content_filter",
        "content_filtered",
        "content_moderation",
        "content_policy_violation",
        "contentpolicyviolationerror",
        "data_inspection_failed",
        "datainspectionfailed",
        "inputtextsensitivecontentdetected",
        "misalignment_policy_violation",
        "moderation_blocked",
        "outputtextsensitivecontentdetected",
        "prohibited_content",
        "responsibleaipolicyviolation",
        "sensitivecontentdetected",
        "1301",  # Zhipu: the prompt or the answer is unsafe
    }
)
# Some providers have no code for a used-up account, but say in these words that the
# account is used up.
_QUOTA_WORDS = re.compile(
    r"credit balance is too low|insufficient (?:account )?(?:balance|credits?|funds|quota)"
    r"|balance is insufficient"
    r"|(?:used|exhausted) (?:up )?(?:all|its|your) (?:of your |the )?(?:available )?credits"
    r"|out of credits|not enough credits|requires more credits|monthly spending limit"
    r"|exceeded your (?:monthly )?included credits"
    r"|monthly (?:\w+ ){0,3}limit (?:has been |was )?(?:exceeded|reached)"
    r"|reached your .{0,40}usage limit|check your account balance"
    r"|spend(?:ing)? limit (?:has been |was )?(?:reached|exceeded)|spending cap|key limit exceeded"
    r"|account is in arrears|overdue (?:balance|bill|payment)"
    r"|(?:don't|doesn't|do not) have (?:any|enough) credits|\u4f59\u989d\u4e0d\u8db3|\u6b20\u8d39",
    re.IGNORECASE,
)
# These words count only at the beginning of a text. The rest of a text may repeat the words of the
# request, such as the name of a tool.
_QUOTA_OPENING = re.compile(
    r"\s*(?:(?:your|the) )?(?:credit balance is too low"
    r"|insufficient (?:account )?(?:balance|credits?|funds)"
    r"|(?:account )?balance is insufficient|(?:you have|you've) reached your .{0,40}usage limit"
    r"|account (?:\S+ )?is (?:suspended|in arrears)|budget has been exceeded|out of credits"
    r"|monthly spending limit|\u4f59\u989d\u4e0d\u8db3|\u6b20\u8d39)",
    re.IGNORECASE,
)
# Failures with these statuses, and the words of these failures, are about the account, the key or a
# limit.
_ACCOUNT_STATUSES = frozenset({401, 402, 403, 429})
# Words for a limit, in errors that have no code.
_LIMIT_WORDS = re.compile(r"\brate[ _-]?limit|too many requests|\bthrottl", re.IGNORECASE)
# A limit for one of these time windows passes by itself.
_SHORT_WINDOW = re.compile(
    r"\b(?:per|a|each) (?:second|minute|hour)\b|\b(?:[rt]p[ms])\b|/ ?min\b", re.IGNORECASE
)
# A request that is larger than the limit never passes, even after a long wait.
_TOO_LARGE = re.compile(r"request too large", re.IGNORECASE)
_ASKED_OF_LIMIT = re.compile(
    r"limit:? ([\d,]{1,30})\b.{0,60}?requested:? ([\d,]{1,30})\b", re.IGNORECASE
)
# The status that an error inside a 200 stands for.
_STATUS_OF: dict[Kind, int] = {
    AuthenticationFailed: 401,
    BadRequest: 400,
    ConnectionFailed: 408,
    Overloaded: 503,
    QuotaExhausted: 402,
    RateLimited: 429,
    ServerFailure: 500,
}
# A 429 with one of these codes is no limit of the account. The provider has no capacity left, for
# example for the tier "flex". OpenAI's page calls this answer "429 Resource Unavailable". The other
# codes are the names that Gemini and Groq have for this answer.
CAPACITY_CODES = frozenset(
    {"capacity_exceeded", "model_capacity_exhausted", "resource_unavailable"}
)
_CAPACITY_STATUSES = (429, 498)  # 498 is Groq's status for this
_NO_CAPACITY = re.compile(
    r"resource[ _]unavailable|no capacity|(?:not enough|insufficient) (?:capacity|resources)",
    re.IGNORECASE,
)
_STATUS = re.compile(r"[45]\d\d")


def kind_of(
    status: int, codes: Sequence[str], text: str, *, numbered: Kind | None, may_pass: bool
) -> tuple[Kind, int]:
    """Return the class and the status of a failure; an error inside a 200 has its own status.

    Args:
        status: HTTP status of the answer.
        codes: The codes of the error, the most specific code first.
        text: The words of the error.
        numbered: The class that ``BY_NUMBER`` has for the error, or None.
        may_pass: Whether the provider names a time to wait, so that waiting helps.

    Returns:
        The class, and the HTTP status that the failure stands for, such as 429.
    """
    names = [code.lower() for code in codes]
    known = True
    if status < HTTPStatus.MULTIPLE_CHOICES:
        if numbered:
            return numbered, _STATUS_OF[numbered]
        # Gateways put the original provider's status into the body.
        inner = next((int(code) for code in codes if _STATUS.fullmatch(code)), None)
        named = next(filter(None, map(_named, names)), None)
        known = inner is not None or named is not None
        status = _STATUS_OF[named or ServerFailure] if inner is None else inner
    if numbered is QuotaExhausted or QUOTA_CODES.intersection(names):
        return QuotaExhausted, status if known else _STATUS_OF[QuotaExhausted]
    if not may_pass and _means_account(status, text, known=known):
        return QuotaExhausted, status if known else _STATUS_OF[QuotaExhausted]
    if REFUSAL_CODES.intersection(name.partition(".")[0] for name in names):
        return BadRequest, status if known else _STATUS_OF[BadRequest]
    if not known and _LIMIT_WORDS.search(text):
        status = _STATUS_OF[RateLimited]
    if status in _CAPACITY_STATUSES and _lacks_capacity(names, text):
        return Overloaded, status
    refused = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    kind = BY_STATUS.get(status, BadRequest if refused else ServerFailure)
    return BadRequest if kind is RateLimited and _never_passes(text) else kind, status


def names_error(code: str) -> bool:
    """Return whether a type is the type of an error, such as ``invalid_request_error``."""
    name = code.lower()
    return (
        _named(name) is not None
        or name in QUOTA_CODES
        or name in CAPACITY_CODES
        or name in REFUSAL_CODES
        or name.endswith(("error", "exception"))
        or _STATUS.fullmatch(name) is not None
    )


def _named(name: str) -> Kind | None:
    """Return the class of a name; a part after a dot only narrows the class ("Throttling.User")."""
    return BY_TYPE.get(name) or BY_TYPE.get(name.partition(".")[0])


def _means_account(status: int, text: str, *, known: bool) -> bool:
    """Return whether the words of a failure say that the account is used up."""
    if known and status not in _ACCOUNT_STATUSES:
        return _QUOTA_OPENING.match(text) is not None
    return _QUOTA_WORDS.search(text) is not None and not _SHORT_WINDOW.search(text)


def _lacks_capacity(names: list[str], text: str) -> bool:
    return bool(CAPACITY_CODES.intersection(names)) or _NO_CAPACITY.search(text) is not None


def _never_passes(text: str) -> bool:
    """Return whether a request was refused because it is larger than the whole limit."""
    if _TOO_LARGE.search(text):
        return True
    asked = _ASKED_OF_LIMIT.search(text)
    return asked is not None and _number(asked[2]) > _number(asked[1])


def _number(digits: str) -> int:
    return int(digits.replace(",", "") or 0)
