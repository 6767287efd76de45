"""What a module offers to workflows, whatever else it imports."""

import contextlib
import sys
from importlib import import_module
from pathlib import Path

import pytest

from app.errors import UnknownFunction
from app.kinds.functions import FunctionKind
from tests.support.kind_contexts import agent_context

pytestmark = pytest.mark.anyio

MODULE = """
import os
from functools import lru_cache, partial
from subprocess import getoutput
from subprocess import getoutput as shell
from app.examples.functions import Totals, totals as passed_on

__all__ = ["passed_on", "missing"]
alias = os.system
ready = partial(getoutput, "true")
LIMIT = 5

def own(): return "own"
@lru_cache
def cached(): return "cached"
class Made:
    def __init__(self): self.value = 1
def _private(): return "private"
__dunder__ = own
short = lambda: "short"
"""
OFFERED = {"own", "cached", "Made", "short", "passed_on"}


async def test_a_module_offers_only_what_it_defines_or_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "offering_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    kind = FunctionKind(["offering_module"])
    module = import_module("offering_module")
    reached = set()

    for name in vars(module):
        with contextlib.suppress(UnknownFunction):
            kind._load(f"offering_module:{name}")
            reached.add(name)

    assert reached == OFFERED
    for name in vars(module).keys() - OFFERED:
        with pytest.raises(UnknownFunction, match=r"does not offer .* list the name in __all__"):
            await kind.run(agent_context({"function": f"offering_module:{name}"}))
    del sys.modules["offering_module"]
