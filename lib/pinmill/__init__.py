"""Pinmill: notebook-driven, reproducible machine learning for small data teams."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pinmill.client import Client
    from pinmill.session import Run, start

__all__ = ["Client", "Run", "start"]
__version__ = "0.1.0"


def __getattr__(name: str):
    """Load what a notebook needs only when it asks for it, so that the command and the client stay quick."""
    if name == "Client":
        from pinmill.client import Client

        return Client
    if name in __all__:
        from pinmill import session

        return getattr(session, name)
    raise AttributeError(f"module 'pinmill' has no attribute {name!r}")
