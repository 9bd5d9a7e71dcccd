"""The product of 16-bit matrices with a float32 result, for logits: rounding to 16 bits moves one of 40 by up to 2^-3.

C positions of a chunk, H hidden size, V vocabulary.
"""

import torch
from torch import Tensor


def wide_product(hidden_CH: Tensor, weight_VH: Tensor, out_CV: Tensor, narrow_CV: Tensor) -> Tensor:
    """Write hidden times the transposed weight into `out_CV` float32 and return it. Call without gradients.

    Both factors have one 16-bit dtype; `narrow_CV` is a buffer of it. Sums are in float32. CUDA returns them as they
    are. On CPUs that multiply bfloat16, whose library rounds every product, a second product finds what the first one
    lost (16 bits of the mantissa are right); other CPUs multiply in float32, a block of the vocabulary at a time.
    """
    if out_CV.device.type == "cuda":
        return torch.mm(hidden_CH, weight_VH.T, out_dtype=torch.float32, out=out_CV)
    if weight_VH.dtype is torch.bfloat16 and multiplies_bfloat16():
        torch.mm(hidden_CH, weight_VH.T, out=narrow_CV)
        out_CV.copy_(narrow_CV)
        torch.addmm(narrow_CV, hidden_CH, weight_VH.T, beta=-1, out=narrow_CV)
        return out_CV.add_(narrow_CV)
    return _product_in_blocks(hidden_CH.float(), weight_VH, out_CV)


def multiplies_bfloat16() -> bool:
    """Return whether this CPU has instructions for products of bfloat16 and torch uses them."""
    return bool(torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _product_in_blocks(hidden_CH: Tensor, weight_VH: Tensor, out_CV: Tensor) -> Tensor:
    """Multiply in float32; a block of the weight is no larger than the result."""
    block = max(1, out_CV.numel() // hidden_CH.shape[1])
    for start in range(0, len(weight_VH), block):
        part = slice(start, start + block)
        out_CV[:, part] = hidden_CH @ weight_VH[part].float().T
    return out_CV
