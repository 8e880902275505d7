"""The security room."""

__all__: tuple[str, ...] = ()
