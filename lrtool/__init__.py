"""Find a learning rate that trains about as well as the best of an exhaustive grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrtool.api import FindResult, find_lr
    from lrtool.training.loaded import load

__all__ = ["FindResult", "__version__", "find_lr", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import torch only when someone asks for what needs it."""
    if name in {"FindResult", "find_lr"}:
        from lrtool import api  # noqa: PLC0415  (this is the laziness)

        return getattr(api, name)
    if name == "load":
        from lrtool.training import loaded  # noqa: PLC0415  (likewise)

        return loaded.load
    raise AttributeError(f"module 'lrtool' has no attribute {name!r}")
