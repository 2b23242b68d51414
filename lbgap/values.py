"""Values that say what they are: immutable, validated on construction, with a key that is a hash of their canonical JSON.

Fields at their default are left out of that JSON, so a new field whose default reproduces the old behaviour keeps every old
key; a default, once released, is therefore never changed.
"""

import hashlib
import json
from functools import cached_property
from numbers import Integral, Real
from typing import Annotated, Any, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]  # torch's CPU generator takes 32 bits of a seed
Count = Annotated[int, Field(ge=1, strict=True)]


def is_whole(value: Any) -> bool:
    """Whether it is an integer, also one of NumPy's; a truth value is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Whether it is a number that lies on a line; a truth value is none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def same_code(one: Any, other: Any) -> bool:
    """Whether two functions or classes are one and the same, or its definition run twice, as of a notebook's cell."""

    def place(of: Any) -> tuple[str | None, str | None]:
        return getattr(of, "__module__", None), getattr(of, "__qualname__", None)

    named = place(one)[1] and "<lambda>" not in place(one)[1]
    return one is other or one == other or bool(named and place(one) == place(other))


class ReadOnly(dict):
    """A dictionary that stays as it was made; a key is computed from it."""

    def _refuse(self, *_, **__):
        raise TypeError("a specification cannot be changed; make another with model_copy")

    __setitem__ = __delitem__ = __ior__ = update = pop = popitem = clear = setdefault = _refuse

    def __reduce__(self):
        return ReadOnly, (dict(self),)


Values = Annotated[dict[str, bool | int | float | str], AfterValidator(ReadOnly)]


class Frozen(BaseModel):
    """An immutable value; unknown names and bad values end in a ValueError of one sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    def __init__(self, **values):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(_sentence(type(self), error)) from None

    @model_validator(mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Pydantic would read them as 0 and 1."""
        for name, field in cls.model_fields.items():
            if isinstance(values.get(name), bool) and not _takes_truth(field.annotation):
                raise ValueError(f"{name} is {values[name]}; accepted is no truth value")
        return values

    def canonical(self) -> dict[str, Any]:
        """JSON-ready values, defaults left out."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def model_copy(self, *, update: dict[str, Any] | None = None, deep: bool = False) -> Self:
        """The same value with some fields replaced; validated like any other, and with a key of its own."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **(update or {})})

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.key == other.key


def _takes_truth(annotation: Any) -> bool:
    """Whether a field may be true or false: by its type, or one that it is made of."""
    return annotation in (bool, Any) or any(map(_takes_truth, get_args(annotation)))


def _sentence(cls: type, error: ValidationError) -> str:
    """The first fault in one sentence; an unknown name comes before what else is wrong."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    first = faults[0]
    *outer, last = first["loc"] or ("value",)
    name = ".".join(map(str, [*outer, last]))
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if first["type"] == "extra_forbidden":
        return f"{name} is not known to {cls.__name__}; accepted are {', '.join(cls.model_fields)}"
    if first["type"] == "missing":
        return f"{name} is missing; {cls.__name__} needs it"
    wanted = first["msg"]
    for theirs, ours in (
        ("Input should be", "accepted is"),
        ("Tuple should have", "accepted is"),
        (" after validation, not 0", ""),
        ("a valid tuple", "a list"),
        ("unable to parse string as an integer", "not text"),
    ):
        wanted = wanted.replace(theirs, ours)
    if isinstance(last, int):
        return f"{'.'.join(map(str, outer))} contains {first['input']!r}; {wanted}"
    return f"{name} is {first['input']!r}; {wanted}"
