"""`Columns`: events handed over as columns, for who publishes arrays and wants arrays back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from meshfold.core.errors import DecodeError, PayloadGone, WiringError
from meshfold.core.schema.codec import UNFIT, said

if TYPE_CHECKING:
    from meshfold._native import Queue
    from meshfold.core.route import Route

__all__ = ("Columns",)

#: Events in one `Columns` at most.
COLUMN_EVENTS_MAX: Final = 65_536
#: Kind of schema -> (format of its column, bytes of one value).
_SCALARS: Final[dict[str, tuple[Literal["d", "q", "?"], int]]] = {
    "float": ("d", 8),
    "int": ("q", 8),
    "bool": ("?", 1),
}


class Columns:
    """Events of one producer's life on one route, in order, with the same taints: no Python object for each.

    Columns are read-only memory; `numpy.asarray(columns.values)` makes an array of it without a copy.
    """

    __slots__ = ("_data", "incarnation", "keys", "producer", "route", "seqs", "taints", "times")

    def __init__(self, r: Route[Any], row: tuple[Any, ...]) -> None:
        seqs, times, data, keys, taints, producer, incarnation = row
        self.route = r
        #: their numbers, unsigned 64 bit; where some were lost, they are not consecutive
        self.seqs = memoryview(seqs).cast("Q")
        #: their device times in ns, 64 bit
        self.times = memoryview(times).cast("q")
        #: partition keys, one for each, None where there is none; None: none has one
        self.keys: list[str | None] | None = keys
        self.taints: list[str] = taints
        self.producer: bytes = producer
        self.incarnation: bytes = incarnation
        self._data: bytes | None = data

    def __len__(self) -> int:
        return len(self.seqs)

    @property
    def values(self) -> Any:
        """The values: memory of doubles, 64-bit integers or truths; of a numpy schema an array with one axis in front.

        :raises PayloadGone: if only their metadata came here
        :raises DecodeError: if the bytes of a remote producer are no such values
        """
        schema, data = self.route.schema, self._data
        if data is None:
            raise PayloadGone(
                f"only metadata of {self.route.text} came here",
                fix="read it with PAYLOAD_OPEN",
                route=self.route.text,
            )
        if schema.kind not in _SCALARS:
            codec: Any = schema.codec
            try:
                return codec.column(data, len(self))
            except UNFIT as error:
                raise self._misfit(said(error)) from None
        form, size = _SCALARS[schema.kind]
        if len(data) != size * len(self) or (form == "?" and max(data, default=0) > 1):
            raise self._misfit(f"{len(data)} bytes for {len(self)} values")
        return memoryview(data).cast(form)

    def without_payload(self) -> Columns:
        """The same without values: what one sees who may read metadata only."""
        row = (
            self.seqs.obj,
            self.times.obj,
            None,
            self.keys,
            self.taints,
            self.producer,
            self.incarnation,
        )
        return Columns(self.route, row)

    def _misfit(self, why: str) -> DecodeError:
        return DecodeError(
            f"{why} are not {self.route.schema.name} for {self.route.text}", fix="", reason="schema"
        )

    def __repr__(self) -> str:
        return f"Columns({self.route.text}, {len(self)} events, {self.seqs[0]} to {self.seqs[-1]})"


def check_columnar(r: Route[Any]) -> None:
    """Refuse a route whose values have no columns.

    :raises WiringError: for a schema other than float, int, bool, and numpy of a fixed shape
    """
    schema = r.schema
    fixed = schema.kind == "numpy" and schema.codec is not None and None not in schema.codec.shape["shape"]
    if schema.kind not in _SCALARS and not fixed:
        raise WiringError(
            f"values of {r.text} have no columns: {schema.kind}",
            fix="read its events, with batch=True as lists",
            item=r.text,
        )


def take_columns(queue: Queue, r: Route[Any], most: int = COLUMN_EVENTS_MAX) -> Columns | None:
    """The next columns that wait in a queue; None: nothing waits."""
    row = queue.take_columns(most)
    return None if row is None else Columns(r, row)
