"""The versions of Claude models, and the surcharge for the region in which a model runs."""

import re
from collections.abc import Mapping
from decimal import Decimal

# Finds the version, not the date: claude-3-5-sonnet, claude-opus-4-7, claude-sonnet-4-20250514.
_VERSION = re.compile(r"claude-(?:[a-z]+-)*v?(\d{1,2})(?!\d)(?:[.-](\d{1,2})(?!\d))?")
# Models that appeared in February 2026 or later can be restricted to the USA. All tokens then cost
# 1.1 times their price; see https://platform.claude.com/docs/en/manage-claude/data-residency. Older
# models refuse the parameter inference_geo.
_FIRST_WITH_REGIONS = (4, 6)
_REGIONS: Mapping[str, Decimal] = {"us": Decimal("1.1")}


def claude_version(model: str) -> tuple[int, int] | None:
    """Return the version of an Anthropic model, such as (4, 6); None if the name has no version."""
    found = _VERSION.search(model)
    return None if found is None else (int(found[1]), int(found[2] or 0))


def region_factors(model: str) -> Mapping[str, Decimal]:
    """Return, for each region, the factor that multiplies the price of a model's tokens.

    Args:
        model: Model name.

    Returns:
        Factors by the value of ``inference_geo``; empty if the model runs only where the provider
        chooses.

    Example:
        >>> region_factors("claude-opus-5-5")
        {'us': Decimal('1.1')}
    """
    version = claude_version(model)
    known_as_older = version is not None and version < _FIRST_WITH_REGIONS
    return _REGIONS if "claude" in model and not known_as_older else {}
