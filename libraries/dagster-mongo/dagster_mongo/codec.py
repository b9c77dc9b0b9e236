"""Which BSON a value becomes, and which value BSON becomes."""

import struct
from decimal import Decimal, DecimalException
from typing import Any

from bson import CodecOptions, Decimal128
from bson.binary import UuidRepresentation
from bson.codec_options import TypeDecoder, TypeRegistry
from bson.decimal128 import create_decimal128_context
from bson.errors import BSONError

__all__ = ["CODEC", "NO_BSON", "of_numpy"]

_BID, _SPECIAL = struct.Struct("<QQ"), 0x6000000000000000
_IEEE = create_decimal128_context()
# What is raised where BSON has no such value.
NO_BSON = (BSONError, OverflowError, TypeError, ValueError)


def of_numpy(value: Any) -> Any:
    """A value of NumPy, or an array of them, as Python's; any other as it is.

    Raises:
        TypeError: It is a duration, or a date that Python has not.
    """
    if type(value).__module__.partition(".")[0] != "numpy":
        return value
    kind = value.dtype.kind
    dates = value.astype("datetime64[ms]") if kind == "M" else value
    # NumPy's own conversion makes numbers of what is finer than a microsecond or out of range.
    if kind in "mM" and any(isinstance(each, int) for each in dates.ravel().tolist()):
        raise TypeError(f"BSON has no {type(value).__name__} ({value!r}): convert it")
    return dates.tolist()


class _Decimals(TypeDecoder):
    bson_type = Decimal128

    def transform_bson(self, value: Any) -> Decimal:
        """As `to_decimal` does, in an eighth of its time."""
        low, high = _BID.unpack(value.bid)
        if high & _SPECIAL == _SPECIAL:  # infinity, or no number
            decimal: Decimal = value.to_decimal()
            return decimal
        digits = Decimal((high & 0x1FFFFFFFFFFFF) << 64 | low)
        number = digits.scaleb((high >> 49 & 0x3FFF) - 6176, _IEEE)
        return number.copy_negate() if high >> 63 else number


def _as_bson(value: Any) -> Any:
    """What BSON has for a value that pymongo itself does not take."""
    if isinstance(value, Decimal):
        try:
            return Decimal128(value)
        except DecimalException:
            digits = len(value.as_tuple().digits)
            raise ValueError(
                f"a decimal of {digits} digits, {value}, is none that MongoDB has (34 digits,"
                " exponents from -6176 to 6111): round it"
            ) from None
    if type(value).__name__ == "NAType":  # of pandas, which may not be installed
        return None
    if (plain := of_numpy(value)) is not value:
        return plain
    if hasattr(value, "tolist"):  # pandas's arrays
        return value.tolist()
    raise TypeError(f"BSON has no {type(value).__name__} ({value!r}): convert it")


CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    document_class=dict,
    tz_aware=True,
    uuid_representation=UuidRepresentation.STANDARD,
    type_registry=TypeRegistry([_Decimals()], fallback_encoder=_as_bson),
)
