"""Chat templates of the tiny models, each in the format of its family."""

from __future__ import annotations

_ROLE = "{{ '<|im_start|>' + m['role'] + '\\n' }}"
_LOOP = "{% for m in messages %}"
_OPEN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"


def _contents(image: str) -> str:
    """Return the template of a message's parts in order."""
    return (
        "{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ '"
        + image
        + "' }}{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    )


CHATML = (
    f"{_LOOP}{_ROLE}{_contents('<|vision_start|><|image_pad|><|vision_end|>')}"
    "{{ '<|im_end|>\\n' }}{% endfor %}" + _OPEN
)
IDEFICS = (
    "<|im_start|>"
    + _LOOP
    + "{{ m['role'] | capitalize }}{% if m['content'][0]['type'] == 'image' %}{{ ':' }}"
    "{% else %}{{ ': ' }}{% endif %}"
    + _contents("<image>")
    + "{{ '<end_of_utterance>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
INTERN = (
    f"{_LOOP}{_ROLE}{_contents('<IMG_CONTEXT>' + chr(92) + 'n')}"
    "{{ '<|im_end|>\\n' }}{% endfor %}" + _OPEN
)
ONEVISION = (
    _LOOP
    + "{{ '<|im_start|>' + m['role'] + ' ' }}"
    + "{% for c in m['content'] if c['type'] == 'image' %}{{ '<image>' }}{% endfor %}"
    + "{% for c in m['content'] if c['type'] == 'text' %}{{ '\\n' + c['text'] }}{% endfor %}"
    + "{{ '<|im_end|>' }}{% endfor %}"
    + _OPEN
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set head = messages[0]['content'][0]['text'] + '\\n\\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set head = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' }}"
    "{{ head if loop.first else '' }}"
    + _contents("<start_of_image>")
    + "{{ '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
