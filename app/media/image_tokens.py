"""The tokens of an image, by the formulas of the providers (November 2026).

The formulas come from OpenAI's guide "Images and vision" and Anthropic's page "Vision". The name of
a model decides on the formula, also if a gateway's prefix stands before the name. If a provider
scales an image down, the count here is never below the provider's count, and at most some percent
above.
"""

import re
from dataclasses import dataclass
from math import ceil
from typing import Protocol

#: Levels of detail that a request may ask for; "auto" lets the provider choose.
DETAILS = ("auto", "low", "high")


class Formula(Protocol):
    """The tokens that a family of models counts for an image."""

    def tokens(self, width: int, height: int, detail: str) -> int:
        """Return the tokens of an image of this size; ``detail`` is one of ``DETAILS``."""
        ...

    def bound(self, width: int, height: int, detail: str) -> int:
        """Return the most tokens of an image, if the provider leaves a step open."""
        ...

    def page(self) -> int:
        """Return the most tokens of a page's picture; no provider states this picture's pixels."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiles:
    """Tiles of 512 x 512 pixels, after the image was scaled to a short side of 768 pixels.

    Attributes:
        base: Tokens of every image, and all tokens of an image of low detail.
        tile: Tokens of each tile.
    """

    base: int
    tile: int

    def tokens(self, width: int, height: int, detail: str) -> int:
        """See ``Formula``."""
        if detail == "low":
            return self.base
        scale = min(1, 2048 / max(width, height), 768 / min(width, height))
        columns, rows = (ceil(max(side * scale, 1) / 512) for side in (width, height))
        return self.base + self.tile * columns * rows

    def bound(self, width: int, height: int, detail: str) -> int:
        """See ``Formula``. The guide leaves open whether small images are enlarged."""
        if detail == "low":
            return self.base
        longer = min(768 * max(width, height) / min(width, height), 2048)
        return self.base + self.tile * 2 * ceil(longer / 512)

    def page(self) -> int:
        """See ``Formula``."""
        return self.bound(1, 4, "high")


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """The size to which an image is scaled down: patches, and pixels of the longest side."""

    patches: int
    edge: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Patches:
    """Square patches, after the image was scaled down to a budget.

    Attributes:
        pixels: Side of a patch.
        factor: Tokens of a patch.
        high: Budget of high detail.
        auto: Budget if the provider chooses the detail; None means that the provider chooses high
            detail.
        low: Patches of an image of low detail; None if an image of low detail counts like any other
            image.
    """

    pixels: int
    factor: float
    high: Budget
    auto: Budget | None = None
    low: int | None = None

    def tokens(self, width: int, height: int, detail: str) -> int:
        """See ``Formula``."""
        if detail == "low" and self.low is not None:
            return ceil(self.low * self.factor)
        budget = self.high if detail != "auto" or self.auto is None else self.auto
        long = max(width, height)
        scale = min(1.0, budget.edge / long)
        columns, rows = (ceil(max(side * scale, 1) / self.pixels) for side in (width, height))
        return ceil(min(columns * rows, budget.patches) * self.factor)

    def bound(self, width: int, height: int, detail: str) -> int:
        """See ``Formula``."""
        return self.tokens(width, height, detail)

    def page(self) -> int:
        """See ``Formula``."""
        return ceil(self.high.patches * self.factor)


_SMALL = Budget(patches=1536, edge=2048)
_LARGE = Budget(patches=2500, edge=2048)
_ORIGINAL = Budget(patches=10_000, edge=6000)
# OpenAI refuses images with more patches.
_UNSCALED = Budget(patches=30_000, edge=65_535)
# The largest of the factors, for models whose factor is not published.
_LARGEST_FACTOR = 2.46
_LOW_PATCHES = 256

_LATEST = Patches(pixels=32, factor=1.2, high=_LARGE, auto=_UNSCALED, low=_LOW_PATCHES)
_GPT_4O = Tiles(base=85, tile=170)
# The pages of Anthropic speak of 1,568 and of about 1,600 tokens.
_CLAUDE = Patches(pixels=28, factor=1, high=Budget(patches=1600, edge=1568))
_CLAUDE_4_7 = Patches(pixels=28, factor=1, high=Budget(patches=4784, edge=2576))
_UNKNOWN_OPENAI = Patches(
    pixels=32, factor=_LARGEST_FACTOR, high=_LARGE, auto=_UNSCALED, low=_LOW_PATCHES
)


def _small(factor: float) -> Patches:
    return Patches(pixels=32, factor=factor, high=_SMALL)


# The first pattern that is found in a model's name decides.
_FORMULAS: tuple[tuple[re.Pattern[str], Formula], ...] = tuple(
    (re.compile(pattern), formula)
    for pattern, formula in (
        (r"claude-(?:[a-z]+-)*(?:[1-3](?!\d)|4[-.][0-6](?!\d)|4(?![-.]?\d)|4-\d{8})", _CLAUDE),
        (r"claude", _CLAUDE_4_7),
        (r"gpt-(?:4\.1|5|5\.4)-mini", _small(1.62)),
        (r"gpt-(?:4\.1|5|5\.4)-nano", _small(2.46)),
        (r"o4-mini", _small(1.72)),
        (r"gpt-4o-mini", Tiles(base=2833, tile=5667)),
        (r"gpt-4o|gpt-4\.[15]|gpt-4-(?:turbo|vision)|chatgpt-4o", _GPT_4O),
        (r"gpt-5(?:\.\d)?-codex|gpt-5\.[23]", _small(_LARGEST_FACTOR)),
        (r"gpt-5(?![.\d])|gpt-5\.1", Tiles(base=70, tile=140)),
        (
            r"gpt-5\.4",
            Patches(pixels=32, factor=_LARGEST_FACTOR, high=_LARGE, low=_LOW_PATCHES),
        ),
        (
            r"gpt-5\.5",
            Patches(pixels=32, factor=1.2, high=_LARGE, auto=_ORIGINAL, low=_LOW_PATCHES),
        ),
        (r"gpt-5\.6|gpt-6", _LATEST),
        (r"(?:^|[/:])o[13](?![\d])(?!-mini)", Tiles(base=75, tile=150)),
        (r"computer-use", Tiles(base=65, tile=129)),
    )
)
_ALL = (*(formula for _, formula in _FORMULAS), _UNKNOWN_OPENAI)


def image_bound(model: str, width: int, height: int, detail: str = "auto") -> int:
    """Return the most tokens that an image can have.

    Args:
        model: Model name; if the model's formula is not known, the largest count of all formulas is
            used.
        width: Pixels.
        height: Pixels.
        detail: One of ``DETAILS``.

    Example:
        >>> image_bound("gpt-4o", 1024, 1024)
        765
    """
    known = _formula_of(model)
    formulas = _ALL if known is None else (known,)
    return max(formula.bound(width, height, detail) for formula in formulas)


def image_tokens(model: str, width: int, height: int, detail: str = "auto") -> int:
    """Return the tokens that an image will probably have; arguments as in ``image_bound``."""
    return (_formula_of(model) or _GPT_4O).tokens(width, height, detail)


def page_bound(model: str) -> int:
    """Return the most tokens that the picture of a page of a PDF can have."""
    known = _formula_of(model)
    return max(formula.page() for formula in (_ALL if known is None else (known,)))


def page_tokens(model: str) -> int:
    """Return the tokens that the picture of a page of a PDF will probably have."""
    return (_formula_of(model) or _GPT_4O).tokens(*_USUAL_PAGE, "high")


# A page of 8.5 x 11 inches with 100 pixels per inch.
_USUAL_PAGE = (850, 1100)


def _formula_of(model: str) -> Formula | None:
    return next((formula for pattern, formula in _FORMULAS if pattern.search(model)), None)
