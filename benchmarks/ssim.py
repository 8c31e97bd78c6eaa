"""Measures SSIM of all pairs against scikit-image, one pair a call.

    python benchmarks/ssim.py [--candidates 1000] [--originals 500]

The pairs are random images of MNIST's size; scikit-image scores some hundred of them, and both must
agree to 1e-6 there.
"""

from __future__ import annotations

import time

import torch
from measuring import machine, parser, report
from skimage.metrics import structural_similarity

from distforget.imaging.ssim import ssim_pairs

SCORED_ONE_BY_ONE = 400


def main() -> None:
    """Print both rates."""
    options = parser(__doc__)
    options.add_argument("--candidates", type=int, default=1000)
    options.add_argument("--originals", type=int, default=500)
    options.add_argument("--threads", type=int, default=1)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.quick:
        arguments.candidates, arguments.originals = 200, 100
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.rand(count, 1, 28, 28, generator=generator, dtype=torch.float64)
        for count in (arguments.candidates, arguments.originals)
    )
    chosen = torch.randint(len(left), (SCORED_ONE_BY_ONE,), generator=generator).tolist()
    began = time.perf_counter()
    ours_NM = ssim_pairs(left.to(arguments.device), right.to(arguments.device)).cpu()
    ours = ours_NM.numel() / (time.perf_counter() - began)
    pairs = [(n, number % len(right)) for number, n in enumerate(chosen)]
    arrays = [(left[n, 0].numpy(), right[m, 0].numpy()) for n, m in pairs]
    began = time.perf_counter()
    theirs_P = [structural_similarity(a, b, data_range=1) for a, b in arrays]
    theirs = len(pairs) / (time.perf_counter() - began)
    apart = max(abs(float(ours_NM[n, m]) - s) for (n, m), s in zip(pairs, theirs_P, strict=True))
    if apart > 1e-6:
        raise SystemExit(f"SSIM differs from scikit-image by {apart:.1e}")
    row = {
        "pairs": ours_NM.numel(),
        "scikit-image pairs/s": theirs,
        "distforget pairs/s": ours,
        "ratio": ours / theirs,
        "largest difference": apart,
    }
    report("SSIM of all pairs", [row], machine(arguments.device), arguments.output)


if __name__ == "__main__":
    main()
