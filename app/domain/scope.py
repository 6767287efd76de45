"""Whose runs a client reaches: those of one tenant, or all of them."""

from dataclasses import dataclass

from app.domain.run_options import is_name
from app.errors import OutOfScope


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """Either one tenant or, as ``ALL``, the whole installation.

    A missing tenant is refused instead of meaning everything, so a request without one reaches
    nothing. A run without a tenant belongs to no tenant: only ``ALL`` reaches it.

    Attributes:
        tenant: Name of the tenant; None in ``ALL`` only, where a statement takes it for no
            condition.
        is_all: Whether it is ``ALL``.

    Raises:
        ValueError: If the tenant is no name, or if there is neither or both.
    """

    tenant: str | None = None
    is_all: bool = False

    def __post_init__(self) -> None:
        if self.is_all != (self.tenant is None) or not (self.is_all or is_name(self.tenant)):
            raise ValueError(
                f"the tenant of a scope is {self.tenant!r}: give its name, or take ALL, which "
                "reaches the runs of all tenants"
            )

    def narrowed(self, to: "Scope") -> "Scope":
        """Return the scope that is asked for, which must lie inside this one.

        Raises:
            OutOfScope: If it reaches further.
        """
        if self not in (ALL, to):
            raise OutOfScope(f"the scope is the tenant {self.tenant!r}, and cannot be widened")
        return to

    def tenant_of_new_run(self, wanted: str | None) -> str | None:
        """Return the tenant of a run to be enqueued.

        Raises:
            OutOfScope: If another tenant is wanted.
        """
        if self.is_all or wanted in (None, self.tenant):
            return wanted if self.is_all else self.tenant
        raise OutOfScope(
            f"the run is to be one of the tenant {wanted!r}, and the scope is the tenant "
            f"{self.tenant!r}: leave the tenant out, or enqueue within its own scope"
        )

    def check_all(self, what: str) -> None:
        """Refuse what belongs to the whole installation.

        Raises:
            OutOfScope: If this is the scope of a tenant.
        """
        if not self.is_all:
            raise OutOfScope(
                f"the scope is the tenant {self.tenant!r}, and {what}: take a client of scope ALL"
            )


ALL = Scope(is_all=True)
