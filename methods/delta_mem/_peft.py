"""The one place where PEFT's closed list of types learns the name of δ-mem."""

from __future__ import annotations

from peft.utils.peft_types import PeftType


def _extend(name: str) -> PeftType:
    """A new member of PEFT's string enum. Python keeps no public way; a test holds this against PEFT's version."""
    if name in PeftType.__members__:
        return PeftType[name]
    member = str.__new__(PeftType, name)
    member._name_, member._value_ = name, name
    type.__setattr__(PeftType, name, member)  # where Python 3.12 looks; the enum's own would refuse
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    PeftType._member_names_.append(name)
    return member


DELTA_MEM = _extend("DELTA_MEM")
