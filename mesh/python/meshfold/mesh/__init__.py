"""The mesh room."""

__all__: tuple[str, ...] = ()
