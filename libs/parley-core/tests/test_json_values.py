import json

import pytest
from google.protobuf import struct_pb2
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st
from parley_core.errors import InvalidArgument
from parley_core.json_values import plain_json

pytestmark = pytest.mark.unit

VALUES = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers(-(2**53) + 1, 2**53 - 1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_json_comes_back_as_it_was_written_whole_numbers_included(value) -> None:
    read = plain_json(ParseDict(value, struct_pb2.Value()), field="output")
    # As text: 3 and 3.0 are equal in Python.
    assert json.dumps(read, sort_keys=True) == json.dumps(value, sort_keys=True)


def test_numbers_that_are_not_whole_or_too_large_to_be_exact_stay_floats() -> None:
    for number in (0.5, 1e300):
        read = plain_json(struct_pb2.Value(number_value=number), field="output")
        assert isinstance(read, float)
        assert read == number


def test_an_unset_value_is_null() -> None:
    assert plain_json(struct_pb2.Value(), field="output") is None


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have_are_refused(number: float) -> None:
    struct = struct_pb2.Struct()
    struct["a"] = [number]
    with pytest.raises(InvalidArgument) as caught:
        plain_json(struct, field="call.arguments")
    assert caught.value.reason == "JSON_INVALID"
    assert caught.value.field == "call.arguments"
