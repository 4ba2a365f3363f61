"""Anything that a client sends to the model server is a request or a request error."""

from __future__ import annotations

import json

import pytest
from codedance.pipelines.serving.chat_requests import ChatRequest, read_request
from codedance.pipelines.serving.request_error import RequestError
from hypothesis import given
from hypothesis import strategies as st

from .settings import examples

pytestmark = pytest.mark.slow

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=6)
)
values = st.recursive(
    st.one_of(scalars, st.sampled_from([10**400, -(10**25), 1e999, "\ud83d"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
links = st.one_of(
    values, st.sampled_from(["data:image/png;base64,AAAA", "data:image/png;base64,é"])
)
parts = st.one_of(
    values,
    st.fixed_dictionaries(
        {"type": st.one_of(values, st.sampled_from(["text", "image_url"]))},
        optional={
            "text": values,
            "image_url": st.one_of(links, st.fixed_dictionaries({"url": links})),
        },
    ),
)
roles = st.one_of(values, st.sampled_from(["system", "developer", "user", "assistant"]))
messages = st.fixed_dictionaries(
    {}, optional={"role": roles, "content": st.one_of(values, st.lists(parts, max_size=3))}
)
asked = [{"role": "user", "content": "?"}]
bodies = st.fixed_dictionaries(
    {"messages": st.one_of(values, st.just(asked), st.lists(messages, max_size=3))},
    optional={name: values for name in ChatRequest.model_fields if name != "messages"},
)


@given(st.one_of(bodies, values).map(lambda body: json.dumps(body).encode()))
@examples(3000)
def test_any_body_is_a_request_or_a_request_error(data):
    try:
        request = read_request(data)
    except RequestError as error:
        assert error.status == 400
        assert 0 < len(str(error)) < 1000
        json.dumps(error.body())
        return
    assert request.sampling.max_new_tokens >= 1
    assert len(request.conversations()) == request.n


@given(st.binary(max_size=30))
@examples(500)
def test_any_bytes_are_a_request_or_a_request_error(data):
    with pytest.raises(RequestError):
        read_request(data)
