"""Messages made from their own type annotations: one fixed sample, or random ones for hypothesis.

A new message needs nothing here unless it uses a type no message used before.
"""

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from broker.wire.facts import AnyFact
from broker.wire.messages import AnyEvent, AnyReply, AnyRequest
from broker.wire.work import WorkItem, WorkResult

REQUESTS: tuple[type[msgspec.Struct], ...] = get_args(AnyRequest)
REPLIES: tuple[type[msgspec.Struct], ...] = get_args(AnyReply)
EVENTS: tuple[type[msgspec.Struct], ...] = get_args(AnyEvent)
FACTS: tuple[type[msgspec.Struct], ...] = get_args(AnyFact)
WORK_ITEMS: tuple[type[msgspec.Struct], ...] = get_args(WorkItem)
WORK_RESULTS: tuple[type[msgspec.Struct], ...] = get_args(WorkResult)

S = TypeVar("S", bound=msgspec.Struct)
_INT64_MAX = 2**63 - 1


def tag_of(kind: type[msgspec.Struct]) -> str:
    """Return the `kind` a struct carries on the wire."""
    tag = kind.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


def sample(kind: type[S]) -> S:
    """Return one fixed instance of `kind` with every field filled, optional ones too."""
    return kind(**{field.name: _fixed(field.type, field.name) for field in _fields(kind)})


def instances(kind: type[S]) -> st.SearchStrategy[S]:
    """Return a strategy for instances of `kind` within the bounds of its annotations."""
    return st.builds(kind, **{field.name: _drawn(field.type) for field in _fields(kind)})


def _fields(kind: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return described.fields


def _fixed(kind: inspect.Type, name: str) -> Any:
    return _FIXED[type(kind)](kind, name)


def _fixed_text(kind: Any, name: str) -> str:
    return "c0ffee".ljust(kind.min_length or 0, "0") if kind.pattern else name


def _fixed_union(kind: Any, name: str) -> Any:
    known = [part for part in kind.types if not isinstance(part, inspect.NoneType)]
    return _fixed(known[0], name)


_FIXED: dict[type[inspect.Type], Callable[[Any, str], Any]] = {
    inspect.BoolType: lambda _kind, _name: True,
    inspect.IntType: lambda _kind, name: len(name),
    inspect.FloatType: lambda _kind, _name: 0.5,
    inspect.StrType: _fixed_text,
    inspect.BytesType: lambda kind, _name: bytes(range(kind.min_length or 4)),
    inspect.NoneType: lambda _kind, _name: None,
    inspect.AnyType: lambda _kind, name: name,
    inspect.CustomType: lambda _kind, name: name,  # `object`: any plain value
    inspect.LiteralType: lambda kind, _name: kind.values[0],
    inspect.EnumType: lambda kind, _name: next(iter(kind.cls)),
    inspect.StructType: lambda kind, _name: sample(kind.cls),
    inspect.VarTupleType: lambda kind, name: (_fixed(kind.item_type, name),),
    inspect.DictType: lambda kind, name: {name: _fixed(kind.value_type, name)},
    inspect.UnionType: _fixed_union,
}


def _drawn(kind: inspect.Type) -> st.SearchStrategy[Any]:
    return _DRAWN[type(kind)](kind)


def _drawn_text(kind: Any) -> st.SearchStrategy[str]:
    alphabet = "0123456789abcdef" if kind.pattern else st.characters(exclude_categories=["Cs"])
    shortest = kind.min_length or 0
    longest = max(shortest, min(kind.max_length or 32, 32))
    return st.text(alphabet, min_size=shortest, max_size=longest)


def _drawn_bytes(kind: Any) -> st.SearchStrategy[bytes]:
    shortest = kind.min_length or 0
    return st.binary(min_size=shortest, max_size=max(shortest, min(kind.max_length or 64, 64)))


def _drawn_number(kind: Any) -> st.SearchStrategy[int]:
    lowest = -_INT64_MAX if kind.ge is None else kind.ge
    highest = _INT64_MAX if kind.le is None else kind.le
    return st.integers(lowest, highest if kind.lt is None else kind.lt - 1)


def _drawn_float(kind: Any) -> st.SearchStrategy[float]:
    if kind.gt is None:
        return st.floats(allow_nan=False)
    return st.floats(kind.gt, kind.lt, exclude_min=True, exclude_max=True)


def _drawn_tuple(kind: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    longest = min(kind.max_length or 3, 3)
    parts = st.lists(_drawn(kind.item_type), min_size=kind.min_length or 0, max_size=longest)
    return parts.map(tuple)


_ANYTHING = st.one_of(st.none(), st.booleans(), st.text(max_size=8))
_DRAWN: dict[type[inspect.Type], Callable[[Any], st.SearchStrategy[Any]]] = {
    inspect.BoolType: lambda _kind: st.booleans(),
    inspect.IntType: _drawn_number,
    inspect.FloatType: _drawn_float,
    inspect.StrType: _drawn_text,
    inspect.BytesType: _drawn_bytes,
    inspect.NoneType: lambda _kind: st.none(),
    inspect.AnyType: lambda _kind: _ANYTHING,
    inspect.CustomType: lambda _kind: _ANYTHING,
    inspect.LiteralType: lambda kind: st.sampled_from(kind.values),
    inspect.EnumType: lambda kind: st.sampled_from(list(kind.cls)),
    inspect.StructType: lambda kind: instances(kind.cls),
    inspect.VarTupleType: _drawn_tuple,
    inspect.DictType: lambda kind: st.dictionaries(
        st.text(max_size=8), _drawn(kind.value_type), max_size=3
    ),
    inspect.UnionType: lambda kind: st.one_of([_drawn(part) for part in kind.types]),
}
