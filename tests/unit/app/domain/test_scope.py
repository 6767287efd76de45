"""Scopes: what they reach, and what they refuse."""

import pytest

from app.domain.scope import ALL, Scope
from app.errors import OutOfScope

ACME = Scope(tenant="acme")


@pytest.mark.parametrize("tenant", [None, "", " acme", "a\0", "x" * 201])
def test_a_scope_without_a_tenant_is_refused_instead_of_meaning_everything(
    tenant: str | None,
) -> None:
    with pytest.raises(ValueError, match="give its name, or take ALL"):
        Scope(tenant=tenant)


def test_a_scope_is_not_both_a_tenant_and_everything() -> None:
    with pytest.raises(ValueError, match="acme"):
        Scope(tenant="acme", is_all=True)


@pytest.mark.parametrize("inner", [ALL, ACME])
def test_everything_is_narrowed_to_any_scope(inner: Scope) -> None:
    assert ALL.narrowed(inner) == inner


def test_a_tenant_is_narrowed_to_itself_only() -> None:
    assert ACME.narrowed(Scope(tenant="acme")) == ACME
    for other in (ALL, Scope(tenant="other")):
        with pytest.raises(OutOfScope, match="cannot be widened"):
            ACME.narrowed(other)


@pytest.mark.parametrize(
    ("scope", "wanted", "given"),
    [
        (ALL, None, None),
        (ALL, "acme", "acme"),
        (ACME, None, "acme"),
        (ACME, "acme", "acme"),
    ],
)
def test_a_new_run_is_the_tenants(scope: Scope, wanted: str | None, given: str | None) -> None:
    assert scope.tenant_of_new_run(wanted) == given


def test_a_new_run_of_another_tenant_is_refused() -> None:
    with pytest.raises(OutOfScope, match=r"'other'.*'acme'"):
        ACME.tenant_of_new_run("other")


def test_what_belongs_to_the_installation_is_refused_to_a_tenant() -> None:
    ALL.check_all("limits are the operator's")

    with pytest.raises(OutOfScope, match="limits are the operator's"):
        ACME.check_all("limits are the operator's")
