"""What a refusal says: the words of an `InputError`."""

import pytest

from scanvi_tutorial.inputs import InputError


def refused(function, *arguments, **options) -> str:
    """Return the text with which `function` refuses its input; it must be one paragraph of whole sentences."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith((".", ")"))
    return text
