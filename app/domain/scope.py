"""The scope of a client: the runs of one tenant, or all runs."""

from dataclasses import dataclass

from app.domain.run_options import is_name
from app.errors import OutOfScope


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """The scope of a client: one tenant, or the whole installation (``ALL``).

    A missing tenant is refused and does not mean all tenants, so a request without a tenant reaches
    nothing. Only ``ALL`` reaches a run that has no tenant.

    Attributes:
        tenant: Name of the tenant. Only in ``ALL`` the value is None; SQL statements then select
            the runs of all tenants.
        is_all: Whether the scope is ``ALL``.

    Raises:
        ValueError: If the tenant is not a valid name, if the scope has a tenant although ``is_all``
            is true, or if the scope has no tenant although ``is_all`` is false.
    """

    tenant: str | None = None
    is_all: bool = False

    def __post_init__(self) -> None:
        # An earlier version accepted more names of tenants, and their runs stay in reach.
        if self.is_all != (self.tenant is None) or not (self.is_all or is_name(self.tenant)):
            raise ValueError(
                f"the tenant of a scope is {self.tenant!r}: give its name, or take ALL, which "
                "reaches the runs of all tenants"
            )

    def narrowed(self, to: "Scope") -> "Scope":
        """Return the scope ``to``, which must lie inside this scope.

        Raises:
            OutOfScope: If ``to`` reaches further than this scope.
        """
        if self not in (ALL, to):
            raise OutOfScope(f"the scope is the tenant {self.tenant!r}, and cannot be widened")
        return to

    def tenant_of_new_run(self, wanted: str | None) -> str | None:
        """Return the tenant for a new run.

        Raises:
            OutOfScope: If ``wanted`` is a tenant other than the tenant of this scope.
        """
        if self.is_all or wanted in (None, self.tenant):
            return wanted if self.is_all else self.tenant
        raise OutOfScope(
            f"the run is for the tenant {wanted!r}, and the scope is the tenant "
            f"{self.tenant!r}: leave the tenant out, or use a client with the scope {wanted!r}"
        )

    def check_all(self, what: str) -> None:
        """Refuse an operation on the whole installation, unless this scope is ``ALL``.

        Raises:
            OutOfScope: If this is the scope of a tenant.
        """
        if not self.is_all:
            raise OutOfScope(
                f"the scope is the tenant {self.tenant!r}, and {what}: take a client of scope ALL"
            )


ALL = Scope(is_all=True)
