"""One thread, as `nnunet-fm heads` takes: the products are small."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)  # a session would leave one thread to other rooms
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
