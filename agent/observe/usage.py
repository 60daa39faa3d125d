"""The report of time awake and its cost."""

from dataclasses import dataclass

from agent.machine import Machine
from agent.observe.reports import UsageReport
from agent.platform import flyapi, prices
from agent.platform.fly import ApiError

DAYS, MONTHS = 31, 12
PATIENCE = 5.0
"""Seconds that the Machines API may take to report this machine's size."""


@dataclass(frozen=True, slots=True)
class _Price:
    hour: float | None
    currency: str
    note: str


async def usage_report(machine: Machine) -> UsageReport:
    """The report of `swarm-agent usage`."""
    usage = machine.memory.usage
    await usage.beat()
    price = await _price(machine)
    return UsageReport(
        days=await usage.by("day", DAYS),
        months=await usage.by("month", MONTHS),
        budget_hours=machine.current.value.budget_hours,
        hour_price=price.hour,
        currency=price.currency,
        price_note=price.note,
    )


async def _price(machine: Machine) -> _Price:
    if machine.fly is None:
        return _Price(None, "", "no costs: this machine is not on Fly.io")
    try:
        table = prices.load(machine.current.value.prices)
        size = await flyapi.size(machine.fly, PATIENCE)
        hour = table.hour(size)
    except (ApiError, prices.PriceError) as error:
        return _Price(None, "", f"no costs: {error}")
    note = f"{size.preset} with {size.memory_mb} MB, prices of {table.date} ({table.source}); "
    note += "without volume, addresses, and the root file system while stopped"
    return _Price(hour, table.currency, note)
