"""The rate limits in force, and the stored values, which take precedence over configured values."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from app.bootstrap import Platform
from app.client.transactions import Transactions
from app.rate_limits.stored import LimitTable, check_block, check_model_name, limit_table
from app.storage import limits


class Limits:
    """The rate limits of the installation.

    Args:
        platform: The process's platform.
        transactions: The object that runs transactions in Postgres.
    """

    def __init__(self, platform: Platform, transactions: Transactions) -> None:
        self._settings = platform.settings
        self._signals = platform.signals
        self._transactions = transactions

    async def read(self) -> LimitTable:
        """Return the limits in force; a stored value takes precedence over a configured value."""
        stored = await self._transactions.run(limits.read_limits)
        return limit_table(self._settings.rate_limits, stored, self._settings.provider_names)

    async def set(self, provider: str, model: str, values: Mapping[str, Any]) -> LimitTable:
        """Store limits of a block and notify the workers; then return all limits in force.

        Args:
            provider: Name of the provider.
            model: Name or pattern of models, or ``default``.
            values: The limits by key; the value None means unlimited.

        Raises:
            ConfigurationError: If a key or a value is not allowed.
        """
        check_block(provider, model, values, self._settings.provider_names)
        check_model_name(model)
        await self._transactions.run(lambda c: limits.set_limits(c, provider, model, values))
        await self._signals.send_limits_changed()
        return await self.read()

    async def forget(self, provider: str, model: str, keys: Collection[str]) -> list[str]:
        """Remove stored limits of a block and return the keys of the removed limits.

        If ``keys`` is empty, all stored limits of the block are removed.

        Raises:
            ConfigurationError: If there is no such provider or key.
        """
        check_block(provider, model, dict.fromkeys(keys), self._settings.provider_names)
        forget = partial(limits.forget_limits, provider=provider, model=model, keys=keys)
        forgotten = await self._transactions.run(forget)
        await self._signals.send_limits_changed()
        return forgotten
