"""Products of 16-bit matrices have float32 results, on every kind of CPU and at logits of real sizes."""

import pytest
import torch

from learner import wide_product as module
from learner.wide_product import wide_product


def _factors(dtype: torch.dtype, vocabulary: int = 700) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden_CH = torch.randn(33, 192, generator=generator)
    weight_VH = torch.randn(vocabulary, 192, generator=generator)
    return hidden_CH.to(dtype), weight_VH.to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("instructions", [True, False])
def test_sixteen_bits_of_the_mantissa_are_right(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, instructions: bool
) -> None:
    if not instructions:
        monkeypatch.setattr(module, "multiplies_bfloat16", lambda: False)
    hidden_CH, weight_VH = _factors(dtype)
    exact_CV = hidden_CH.double() @ weight_VH.double().T
    out_CV, narrow_CV = torch.full(exact_CV.shape, 7.0), torch.full(exact_CV.shape, 7.0, dtype=dtype)
    assert wide_product(hidden_CH, weight_VH, out_CV, narrow_CV) is out_CV
    assert exact_CV.abs().max() > 40
    assert (out_CV - exact_CV).abs().max() <= 40 * 2.0**-15
    rounded_CV = (hidden_CH @ weight_VH.T).double()
    assert (rounded_CV - exact_CV).abs().max() > 10 * (out_CV - exact_CV).abs().max()


def test_a_vocabulary_that_no_block_divides() -> None:
    hidden_CH, weight_VH = _factors(torch.float16, vocabulary=701)
    out_CV = torch.empty(3, 701)
    wide_product(hidden_CH[:3], weight_VH, out_CV, torch.empty(3, 701, dtype=torch.float16))
    assert torch.allclose(out_CV, hidden_CH[:3].float() @ weight_VH.float().T, atol=1e-3)
