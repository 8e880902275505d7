"""The consensus room."""

__all__: tuple[str, ...] = ()
