"""Expressions and aggregates that the engine evaluates without the interpreter lock.

`field("temp") > 30` describes a comparison; nothing is computed in Python. They follow Python's arithmetic; a missing
field, a division by zero and an int beyond 64 bits are failures of that one event, counted like an exception (S4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias, Union

from meshfold.core.errors import WiringError

__all__ = (
    "Aggregate",
    "Expr",
    "count",
    "ema",
    "event_time",
    "field",
    "first",
    "greatest",
    "key",
    "last",
    "least",
    "max_",
    "mean",
    "min_",
    "quantile",
    "std",
    "sum_",
    "value",
)

Operand: TypeAlias = Union["Expr", int, float, str, bool, None]


class Expr:
    """A value computed from an event. Combine with `+ - * / // % **`, comparisons, and `& | ~` for and, or, not."""

    __slots__ = ("_form",)
    __hash__ = None  # type: ignore[assignment] # == makes an expression, so there is no equality to hash by

    def __init__(self, form: Any) -> None:
        self._form = form

    @property
    def form(self) -> Any:
        """The expression as plain JSON."""
        return self._form

    def _op(self, name: str, *others: Operand) -> Expr:
        return Expr({"op": name, "args": [self._form, *(_form(other) for other in others)]})

    def _reversed(self, name: str, other: Operand) -> Expr:
        return Expr({"op": name, "args": [_form(other), self._form]})

    def __add__(self, other: Operand) -> Expr:
        return self._op("+", other)

    def __radd__(self, other: Operand) -> Expr:
        return self._reversed("+", other)

    def __sub__(self, other: Operand) -> Expr:
        return self._op("-", other)

    def __rsub__(self, other: Operand) -> Expr:
        return self._reversed("-", other)

    def __mul__(self, other: Operand) -> Expr:
        return self._op("*", other)

    def __rmul__(self, other: Operand) -> Expr:
        return self._reversed("*", other)

    def __truediv__(self, other: Operand) -> Expr:
        return self._op("/", other)

    def __rtruediv__(self, other: Operand) -> Expr:
        return self._reversed("/", other)

    def __floordiv__(self, other: Operand) -> Expr:
        return self._op("//", other)

    def __rfloordiv__(self, other: Operand) -> Expr:
        return self._reversed("//", other)

    def __mod__(self, other: Operand) -> Expr:
        return self._op("%", other)

    def __rmod__(self, other: Operand) -> Expr:
        return self._reversed("%", other)

    def __pow__(self, other: Operand) -> Expr:
        return self._op("**", other)

    def __rpow__(self, other: Operand) -> Expr:
        return self._reversed("**", other)

    def __neg__(self) -> Expr:
        return self._op("neg")

    def __abs__(self) -> Expr:
        return self._op("abs")

    def __lt__(self, other: Operand) -> Expr:
        return self._op("<", other)

    def __le__(self, other: Operand) -> Expr:
        return self._op("<=", other)

    def __gt__(self, other: Operand) -> Expr:
        return self._op(">", other)

    def __ge__(self, other: Operand) -> Expr:
        return self._op(">=", other)

    def __eq__(self, other: object) -> Expr:  # type: ignore[override] # a description of the comparison
        return self._op("==", other)  # type: ignore[arg-type] # _form refuses what is no operand

    def __ne__(self, other: object) -> Expr:  # type: ignore[override] # a description of the comparison
        return self._op("!=", other)  # type: ignore[arg-type] # _form refuses what is no operand

    def __and__(self, other: Operand) -> Expr:
        return self._op("and", other)

    def __rand__(self, other: Operand) -> Expr:
        return self._reversed("and", other)

    def __or__(self, other: Operand) -> Expr:
        return self._op("or", other)

    def __ror__(self, other: Operand) -> Expr:
        return self._reversed("or", other)

    def __invert__(self) -> Expr:
        return self._op("not")

    def __getitem__(self, step: str | int) -> Expr:
        """A field of a field, or a place of a list or of a join's result."""
        if isinstance(self._form, dict) and "field" in self._form:
            return Expr({"field": [*self._form["field"], step]})
        if self._form == value.form:
            return Expr({"field": [step]})
        raise WiringError("only a field has fields", fix="write field('a', 'b')", item="expression")

    def __bool__(self) -> bool:
        raise WiringError(
            "an expression has no truth before an event comes",
            fix="combine expressions with & | ~ instead of and, or, not; and write a < b, b < c apart",
            item="expression",
        )

    def __repr__(self) -> str:
        return f"<Expr {_text(self._form)}>"


def _form(operand: object) -> Any:
    if isinstance(operand, Expr):
        return operand.form
    if operand is None or isinstance(operand, bool | int | float | str):
        return operand
    raise WiringError(
        f"a {type(operand).__name__} in an expression",
        fix="use an expression, a number, a text, a bool or None",
        item="expression",
    )


def _text(form: Any) -> str:
    if not isinstance(form, dict):
        return repr(form)
    if "field" in form:
        return ".".join(str(step) for step in form["field"])
    if "op" in form:
        args = [_text(arg) for arg in form["args"]]
        return f"({args[0]} {form['op']} {args[1]})" if len(args) == 2 else f"{form['op']}({', '.join(args)})"
    return str(next(iter(form)))


def field(*path: str | int) -> Expr:
    """A field of a JSON value, by names and places: `field("axes", 0)`.

    :raises WiringError: without a path
    """
    if not path:
        raise WiringError("field() without a name", fix="name the field", item="expression")
    return Expr({"field": list(path)})


#: The value itself, where it is a number, a text or a bool.
value: Final = Expr({"value": True})
#: The partition key.
key: Final = Expr({"key": True})
#: The device time, ns.
event_time: Final = Expr({"time": True})


def least(a: Operand, b: Operand) -> Expr:
    """The smaller of two values."""
    return Expr({"op": "min", "args": [_form(a), _form(b)]})


def greatest(a: Operand, b: Operand) -> Expr:
    """The greater of two values."""
    return Expr({"op": "max", "args": [_form(a), _form(b)]})


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A number over several events: over the last `size`, over all, or over a window."""

    what: str
    size: int | None = None
    of: Expr | None = None
    q: float | None = None
    alpha: float | None = None

    @property
    def form(self) -> dict[str, Any]:
        """The aggregate as plain JSON, without its size."""
        form: dict[str, Any] = {"what": self.what}
        if self.of is not None:
            form["of"] = self.of.form
        if self.q is not None:
            form["q"] = self.q
        if self.alpha is not None:
            form["alpha"] = self.alpha
        return form


def mean(size: int | None = None, *, of: Expr | None = None) -> Aggregate:
    """The mean of the last `size` values (None: of all, or of a window)."""
    return Aggregate("mean", size, of)


def sum_(size: int | None = None, *, of: Expr | None = None) -> Aggregate:
    """The sum of the last `size` values."""
    return Aggregate("sum", size, of)


def min_(size: int | None = None, *, of: Expr | None = None) -> Aggregate:
    """The least of the last `size` values; NaN is passed over."""
    return Aggregate("min", size, of)


def max_(size: int | None = None, *, of: Expr | None = None) -> Aggregate:
    """The greatest of the last `size` values; NaN is passed over."""
    return Aggregate("max", size, of)


def count(size: int | None = None) -> Aggregate:
    """How many of the last `size` values there are, as an int."""
    return Aggregate("count", size)


def std(size: int | None = None, *, of: Expr | None = None) -> Aggregate:
    """The standard deviation of the last `size` values, as a population."""
    return Aggregate("std", size, of)


def quantile(q: float, size: int | None = None, *, of: Expr | None = None) -> Aggregate:
    """The value below which the share `q` (0 to 1) of the last `size` values lies, interpolated."""
    return Aggregate("quantile", size, of, q=q)


def ema(alpha: float, *, of: Expr | None = None) -> Aggregate:
    """The exponential moving average, in which a new value has the weight `alpha` (0 to 1)."""
    return Aggregate("ema", None, of, alpha=alpha)


def first(size: int | None = None, *, of: Expr | None = None) -> Aggregate:
    """The oldest of the last `size` values."""
    return Aggregate("first", size, of)


def last(size: int | None = None, *, of: Expr | None = None) -> Aggregate:
    """The newest value."""
    return Aggregate("last", size, of)
