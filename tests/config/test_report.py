"""How mistakes in a value that may be of several kinds are worded."""

from __future__ import annotations

import pytest

from detseg.config.load import config_from_dict
from detseg.errors import ConfigError


@pytest.mark.parametrize("size", [31, [64], [], [64, 64, 64]])
def test_a_wrong_value_of_a_union_is_one_line(size: int | list[int]) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict({"data": {"name": "voc", "root": "x", "image_size": size}}, "x.yaml")
    assert str(caught.value) == (
        "x.yaml: data.image_size: expected a whole number from 32 to 13376, or a list of 2 (each a whole number "
        f"from 32 to 13376), got {size}"
    )
