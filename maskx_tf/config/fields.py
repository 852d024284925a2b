"""Base classes of the configuration: a frozen section, strict scalars, and one form of error message."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AllowInfNan, BaseModel, ConfigDict, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

# Strict: the text "5" is no number, and the number 1 is no flag. A whole number may be given for a Float.
Int = Annotated[int, Strict()]
Float = Annotated[float, Strict(), AllowInfNan(False)]
Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict(), Field(min_length=1)]
Count = Annotated[Int, Field(ge=1)]
Seed = Annotated[Int, Field(ge=0, lt=2**32)]  # what every generator of random numbers takes
Fraction = Annotated[Float, Field(ge=0, le=1)]
Positive = Annotated[Float, Field(gt=0)]


class Section(BaseModel):
    """A group of settings. It is frozen, and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, value: Any) -> Any:
        """Accepts null, which a section with only comments is read as: it has its defaults."""
        return {} if value is None else value


def impossible(key: str, expected: str, found: object) -> PydanticCustomError:
    """Returns the error for a value of the right type that is not allowed.

    Args:
        key: the dotted key, relative to the section whose validator objects; empty for the value itself.
        expected: what would be right, and why where that is not plain.
        found: the value that is there.
    """
    return PydanticCustomError("impossible", "expected {expected}", {"key": key, "expected": expected, "found": found})


def refuse_unused(section: Section, expected: str, *, keys: Iterable[str] = (), prefix: str = "") -> None:
    """Raises the error for a setting that has no effect here and differs from its default.

    Args:
        section: the section that has the settings.
        expected: see `impossible`.
        keys: the keys of these settings; none for all of the section.
        prefix: the prefix of the keys in the message, which ends in a dot.
    """
    for key in keys or type(section).model_fields:
        found = getattr(section, key)
        if found != type(section).model_fields[key].default:
            raise impossible(f"{prefix}{key}", expected, found)
